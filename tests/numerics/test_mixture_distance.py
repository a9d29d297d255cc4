"""E|X - X'| of mixtures: two ways, closed forms, and how many frequencies it takes."""

from __future__ import annotations

import math

import pytest
import torch

from bhnbench import mixture_distance
from bhnbench.mixture_distance import (
    by_frequencies,
    by_pairs,
    frequencies_needed,
    mean_abs,
    mean_distance,
)

F64 = torch.float64


def mixture(n_samples: int, spread: float, ratio: float, n: int = 40) -> tuple[torch.Tensor, ...]:
    """Means of this standard deviation; scales from 1 to ``ratio``; as means and variances."""
    rng = torch.Generator().manual_seed(n_samples)
    means = spread * torch.randn(n_samples, n, generator=rng, dtype=F64)
    return means, ratio ** (2 * torch.rand(n_samples, n, generator=rng, dtype=F64))


@pytest.mark.parametrize("n_samples", [1, 2, 9, 100])
@pytest.mark.parametrize("spread", [0.0, 0.3, 30.0])
@pytest.mark.parametrize("ratio", [1.0, 3.0, 10.0])
def test_few_frequencies_are_all_pairs(n_samples, spread, ratio):
    means, variances = mixture(n_samples, spread, ratio)
    n = int(frequencies_needed(means, variances).max())
    found = by_frequencies(means, variances, n)
    torch.testing.assert_close(found, by_pairs(means, variances), rtol=2e-14, atol=0)


@pytest.mark.parametrize(("n_samples", "spread", "ratio"), [(2, 0.0, 3.0), (50, 0.5, 2.0)])
def test_it_converges_exponentially(n_samples, spread, ratio):
    """A third of the frequencies leave an error, two thirds much less, and more than all none."""
    means, variances = mixture(n_samples, spread, ratio)
    n, exact = int(frequencies_needed(means, variances).max()), by_pairs(means, variances)
    third, two_thirds, *enough = (
        (by_frequencies(means, variances, k) / exact - 1).abs().max().item()
        for k in (n // 3, 2 * n // 3, n, 2 * n)
    )
    assert third > 1e-6
    assert 1e-13 < two_thirds < third**2
    assert max(enough) < 1e-14


@pytest.mark.parametrize("way", [by_pairs, mean_distance])
def test_closed_forms(way):
    """The same Gaussian often, 2 sd / sqrt(pi); and two that are apart, half of the time."""
    means, variances = torch.zeros(100, 1, dtype=F64), torch.full((100, 1), 9.0, dtype=F64)
    one = 2 * 3 / math.sqrt(math.pi)
    assert way(means, variances).item() == pytest.approx(one, rel=1e-14)
    means[::2] = 5.0
    apart = mean_abs(torch.tensor(5.0, dtype=F64), torch.tensor(18.0, dtype=F64)).item()
    assert way(means, variances).item() == pytest.approx((one + apart) / 2, rel=1e-14)


@pytest.mark.parametrize(("shift", "scale"), [(0, 1e-140), (0, 1e-60), (0, 1e60), (1e6, 1)])
def test_it_moves_and_scales_with_its_unit(shift, scale):
    means, variances = mixture(100, 1.0, 2.0)
    moved = mean_distance(shift + scale * means, scale**2 * variances)
    torch.testing.assert_close(
        moved / scale, mean_distance(means, variances), rtol=1e-9 if shift else 1e-13, atol=0
    )


def test_scales_that_are_alike_need_no_pairs_and_others_do(monkeypatch):
    """In one call; and memory is bounded, though there are a million pairs."""
    means, variances = mixture(1000, 1.0, 2.0, n=12)
    variances[0, :4] = torch.tensor([0.0, 1e-9, 1e-300, 1e9])
    expected, sizes, n_pairs = by_pairs(means, variances), [], []

    def measured(*mixtures):
        sizes.append(mixtures[0].numel())
        return mean_abs(*mixtures)

    def counted(*mixtures):
        n_pairs.append(mixtures[0].shape[1])
        return by_pairs(*mixtures)

    monkeypatch.setattr(mixture_distance, "mean_abs", measured)
    monkeypatch.setattr(mixture_distance, "by_pairs", counted)
    torch.testing.assert_close(mean_distance(means, variances), expected, rtol=1e-13, atol=0)
    assert 4 <= sum(n_pairs) < 12
    assert max(sizes) <= mixture_distance._ELEMENTS
