"""Calibration of mixtures against integration, other libraries and cases by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scoringrules
import torch
import uncertainty_toolbox
from scipy import stats
from scipy.integrate import quad

from bhnbench import calibration
from bhnbench.errors import DivergedError

F64 = torch.float64


def rng(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_mixture(n_samples: int, n: int, seed: int = 1) -> tuple[torch.Tensor, ...]:
    """Means, scales from 0.01 to 3, and targets that some components are far from."""
    source = rng(seed)
    means = 2 * torch.randn(n_samples, n, generator=source, dtype=F64)
    sds = 0.01 * 300 ** torch.rand(n_samples, n, generator=source, dtype=F64)
    return means, sds, 3 * torch.randn(n, generator=source, dtype=F64)


def crps_by_integration(means: np.ndarray, sds: np.ndarray, y: float) -> float:
    """The definition: integral of (F(x) - 1[y <= x])^2."""

    def cdf(x: float) -> float:
        return float(stats.norm.cdf(x, means, sds).mean())

    low, high = min((means - 12 * sds).min(), y), max((means + 12 * sds).max(), y)
    kinks = np.concatenate([means, means - 3 * sds, means + 3 * sds])
    below, above = (
        quad(
            f, a, b, points=sorted(k for k in kinks if a < k < b), limit=500, epsabs=1e-11
        )[0]
        for f, a, b in (
            (lambda x: cdf(x) ** 2, low, y), (lambda x: (1 - cdf(x)) ** 2, y, high)
        )
    )  # fmt: skip
    return below + above


@pytest.mark.parametrize("n_samples", [1, 2, 5])
def test_crps_is_its_defining_integral(n_samples):
    means, sds, targets = random_mixture(n_samples, 6, seed=n_samples)
    for i in range(6):
        expected = crps_by_integration(means[:, i].numpy(), sds[:, i].numpy(), targets[i].item())
        one = calibration.crps_mixture(means[:, i : i + 1], sds[:, i : i + 1], targets[i : i + 1])
        assert one == pytest.approx(expected, rel=1e-7, abs=1e-9)


@pytest.mark.parametrize(("n_samples", "n"), [(1, 40), (15, 7), (16, 7), (17, 7), (100, 300)])
def test_crps_is_that_of_scoringrules(n_samples, n):
    """Around a block of samples, and where targets are split into chunks."""
    means, sds, targets = random_mixture(n_samples, n)
    expected = scoringrules.crps_mixnorm(targets.numpy(), means.T.numpy(), sds.T.numpy()).mean()
    assert calibration.crps_mixture(means, sds, targets) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("n_samples", [40, 100, 300])
def test_crps_of_scales_that_are_alike_is_that_of_scoringrules(n_samples):
    """As those of posterior samples are: no pairs are visited."""
    means, _, targets = random_mixture(n_samples, 50)
    sds = 1 + torch.rand(n_samples, 50, generator=rng(2), dtype=F64)
    expected = scoringrules.crps_mixnorm(targets.numpy(), means.T.numpy(), sds.T.numpy()).mean()
    assert calibration.crps_mixture(means, sds, targets) == pytest.approx(expected, rel=1e-12)


def test_crps_of_one_gaussian_has_a_closed_form():
    """Gneiting et al. (2005): sd (z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi))."""
    _, sds, targets = random_mixture(1, 50)
    z = (targets / sds[0]).numpy()
    expected = z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / math.sqrt(math.pi)
    crps = calibration.crps_mixture(torch.zeros(1, 50, dtype=F64), sds, targets)
    assert crps == pytest.approx((sds[0].numpy() * expected).mean(), rel=1e-12)


def test_crps_of_point_masses_by_hand():
    means, zero = torch.tensor([[0.0], [3.0]]), torch.zeros(2, 1)
    # E|X - y| - E|X - X'| / 2 = (1 + 2) / 2 - (0 + 3 + 3 + 0) / 8
    assert calibration.crps_mixture(means, zero, torch.tensor([1.0])) == pytest.approx(0.75)
    assert calibration.crps_mixture(means[:1], zero[:1], torch.tensor([0.0])) == 0
    assert calibration.crps_mixture(means[:1], zero[:1], torch.tensor([-4.0])) == 4


def test_crps_of_identical_samples_is_that_of_one():
    means, sds, targets = random_mixture(1, 30)
    many = calibration.crps_mixture(means.expand(50, -1), sds.expand(50, -1), targets)
    assert many == pytest.approx(calibration.crps_mixture(means, sds, targets), rel=1e-12)


@pytest.mark.parametrize(("shift", "scale"), [(0, 1e-6), (0, 1e6), (1e5, 1), (-3, 0.1)])
def test_crps_moves_and_scales_with_its_unit(shift, scale):
    means, sds, targets = random_mixture(20, 30)
    moved = calibration.crps_mixture(shift + scale * means, scale * sds, shift + scale * targets)
    expected = scale * calibration.crps_mixture(means, sds, targets)
    assert moved == pytest.approx(expected, rel=1e-8)


def test_crps_prefers_the_truth():
    """It is proper: the distribution of the targets scores best."""
    targets = torch.randn(5000, generator=rng(2), dtype=F64)
    zeros, ones = torch.zeros(1, 5000, dtype=F64), torch.ones(1, 5000, dtype=F64)
    truth = calibration.crps_mixture(zeros, ones, targets)
    assert truth == pytest.approx(1 / math.sqrt(math.pi), abs=0.02)
    for means, sds in ((zeros + 0.3, ones), (zeros, 0.7 * ones), (zeros, 1.4 * ones)):
        assert calibration.crps_mixture(means, sds, targets) > truth + 0.005


@pytest.mark.parametrize("n_samples", [1, 2, 40])
def test_pit_is_the_mixtures_cdf(n_samples):
    means, sds, targets = random_mixture(n_samples, 25)
    expected = stats.norm.cdf(targets.numpy(), means.numpy(), sds.numpy()).mean(0)
    np.testing.assert_allclose(calibration.pit(means, sds, targets).numpy(), expected, atol=1e-15)


def draws_of(means: torch.Tensor, sds: torch.Tensor, seed: int = 3) -> torch.Tensor:
    """One target from each column's mixture."""
    source, n = rng(seed), means.shape[1]
    chosen = torch.randint(len(means), (n,), generator=source), torch.arange(n)
    return means[chosen] + sds[chosen] * torch.randn(n, generator=source, dtype=F64)


def test_the_coverage_of_the_truth_is_nominal_within_its_monte_carlo_error():
    n = 20_000
    means, sds, _ = random_mixture(10, n)
    targets = draws_of(means, sds)
    for level in (0.1, 0.5, 0.9, 0.99):
        sd = 100 * math.sqrt(level * (1 - level) / n)
        assert calibration.coverage(means, sds, targets, level) == pytest.approx(
            100 * level, abs=4 * sd
        )
        assert calibration.coverage_error(means, sds, targets, level) < 4 * sd
    # The largest distance of an empirical CDF from the truth is about 1.36 / sqrt(n) (95 %).
    assert calibration.calibration_error(means, sds, targets) < 136 / math.sqrt(n)


def test_coverage_by_hand():
    """Targets at known quantiles of a standard normal."""
    quantiles = torch.tensor(
        [0.04, 0.06, 0.24, 0.26, 0.5, 0.74, 0.76, 0.94, 0.96, 0.999], dtype=F64
    )
    targets = torch.special.ndtri(quantiles)
    standard = torch.zeros(1, 10, dtype=F64), torch.ones(1, 10, dtype=F64)
    assert calibration.coverage(*standard, targets, 0.5) == pytest.approx(30)
    assert calibration.coverage(*standard, targets, 0.9) == pytest.approx(70)
    assert calibration.coverage_error(*standard, targets, 0.5) == pytest.approx(20)
    assert calibration.coverage_error(*standard, targets, 0.9) == pytest.approx(20)


def test_the_interval_is_that_of_the_mixture_not_of_its_components():
    """Two far components: the central half lies between them, the central 90 % holds both."""
    means, sds = torch.tensor([[-10.0], [10.0]]), torch.ones(2, 1)
    between = torch.zeros(1)
    assert calibration.coverage(means, sds, between, 0.01) == 100
    assert calibration.coverage(means, sds, torch.tensor([10.0]), 0.5) == 100  # CDF: 0.75
    assert calibration.coverage(means, sds, torch.tensor([10.1]), 0.5) == 0
    assert calibration.coverage(means, sds, torch.tensor([11.2]), 0.9) == 100  # CDF: 0.942
    assert calibration.coverage(means, sds, torch.tensor([11.4]), 0.9) == 0  # CDF: 0.960


@pytest.mark.parametrize("factor", [0.3, 1.0, 2.5])
def test_calibration_error_is_that_of_uncertainty_toolbox(factor):
    """Of Gaussians, over levels that both know; scales off by a factor."""
    n = 400
    means = torch.randn(1, n, generator=rng(4), dtype=F64)
    sds = 0.1 + torch.rand(1, n, generator=rng(5), dtype=F64)
    targets = draws_of(means, factor * sds)
    # Its residuals are predictions less targets: it looks from the upper end, so mirror them.
    arrays = means[0].numpy(), sds[0].numpy(), (2 * means[0] - targets).numpy()
    expected, observed = uncertainty_toolbox.get_proportion_lists_vectorized(
        *arrays, num_bins=101, prop_type="quantile"
    )
    table = calibration.calibration_table(means, sds, targets)
    np.testing.assert_allclose(table["expected"], 100 * expected[1:-1])
    np.testing.assert_allclose(table["observed"], 100 * observed[1:-1], atol=1e-9)
    # Theirs averages over 0 and 100 % too, where the difference is 0.
    theirs = uncertainty_toolbox.mean_absolute_calibration_error(
        *arrays, num_bins=101, prop_type="quantile", vectorized=True
    )
    ours = calibration.calibration_error(means, sds, targets)
    assert ours == pytest.approx(100 * theirs * 101 / 99)


def test_calibration_error_by_hand():
    """All targets above the predictive: nothing is below a level, so the mean level is missing."""
    standard = torch.zeros(1, 3), torch.ones(1, 3)
    assert calibration.calibration_error(*standard, torch.full((3,), 50.0)) == pytest.approx(50)
    assert calibration.calibration_error(*standard, torch.full((3,), -50.0)) == pytest.approx(50)
    # All at the median: |0 - p| below it, |100 - p| from it on: mean of 1..49 and of 50..1
    expected = (sum(range(50)) + sum(range(1, 51))) / 99
    assert calibration.calibration_error(*standard, torch.zeros(3)) == pytest.approx(expected)


def test_the_scores_of_one_pass_are_those_of_each_function():
    mixture = random_mixture(8, 60)
    scores, table = calibration.calibration_scores(*mixture)
    assert scores == {
        "coverage_error_50": calibration.coverage_error(*mixture, 0.5),
        "coverage_error_90": calibration.coverage_error(*mixture, 0.9),
        "calibration_error": calibration.calibration_error(*mixture),
    }
    for name, column in calibration.calibration_table(*mixture).items():
        np.testing.assert_array_equal(table[name], column)


def test_too_certain_is_a_steep_curve_and_too_doubtful_a_flat_one():
    targets = torch.randn(2000, generator=rng(6), dtype=F64)
    zeros = torch.zeros(1, 2000, dtype=F64)
    steep, flat = (
        calibration.calibration_table(zeros, torch.full_like(zeros, sd), targets)["observed"]
        for sd in (0.2, 5.0)
    )
    assert steep[9] > 35  # at the level of 10 %
    assert flat[9] == 0
    assert steep[89] < 65
    assert flat[89] == 100


SCORES = [
    calibration.crps_mixture,
    lambda *mixture: calibration.coverage(*mixture, 0.5),
    lambda *mixture: calibration.coverage_error(*mixture, 0.9),
    calibration.calibration_error,
]


@pytest.mark.parametrize("score", SCORES)
def test_targets_of_several_values_are_scored_one_by_one(score):
    means, sds, targets = random_mixture(5, 12)
    shaped = means.reshape(5, 6, 2), sds.reshape(5, 6, 2), targets.reshape(6, 2)
    assert score(*shaped) == score(means, sds, targets)
    one_scale = torch.full((5, 1, 1), 0.4, dtype=F64)
    everywhere = one_scale.expand(5, 6, 2)
    assert score(shaped[0], one_scale, shaped[2]) == score(shaped[0], everywhere, shaped[2])


@pytest.mark.parametrize("score", SCORES)
def test_float32_and_order_do_not_matter(score):
    means, sds, targets = (values.float() for values in random_mixture(9, 40))
    exact = score(means, sds, targets)
    assert score(means.double(), sds.double(), targets.double()) == exact
    assert score(means.flip(0), sds.flip(0), targets) == pytest.approx(exact, rel=1e-12)
    assert score(means.flip(1), sds.flip(1), targets.flip(0)) == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize(
    ("mean", "sd", "target"), [(0, 0, 0), (0, 0, 1), (0, 1e-300, 0), (1e30, 1e-6, 0), (0, 1e30, 5)]
)
def test_degenerate_mixtures_have_finite_scores(score, mean, sd, target):
    means, sds = torch.full((3, 1), mean, dtype=F64), torch.full((3, 1), sd, dtype=F64)
    assert math.isfinite(score(means, sds, torch.tensor([target], dtype=F64)))


@pytest.mark.parametrize("score", SCORES)
def test_what_cannot_be_scored_is_refused(score):
    means, sds, targets = random_mixture(3, 4)
    for broken in (
        (means, sds, targets[:3]),
        (means[:0], sds[:0], targets),
        (means[:, :0], sds[:, :0], targets[:0]),
    ):
        with pytest.raises(ValueError, match=r"means must be \(n_samples, \*shape of targets\)"):
            score(*broken)
    for place in range(3):
        mixture = [values.clone() for values in (means, sds, targets)]
        mixture[place][0] = math.nan
        with pytest.raises(DivergedError, match="must be finite"):
            score(*mixture)


def test_every_metric_says_what_it_is():
    declared = (
        calibration.CRPS,
        calibration.COVERAGE_ERROR_50,
        calibration.COVERAGE_ERROR_90,
        calibration.CALIBRATION_ERROR,
    )
    assert {metric.direction for metric in declared} == {"minimize"}
    assert len({metric.name for metric in declared}) == len(declared)
    assert [metric.unit for metric in declared] == ["", "%", "%", "%"]
