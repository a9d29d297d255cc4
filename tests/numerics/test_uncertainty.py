"""Uncertainty of predictive samples: closed forms, limits and bounds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from bhnbench import uncertainty

ALL = [
    uncertainty.predictive_entropy,
    uncertainty.expected_entropy,
    uncertainty.bald,
    uncertainty.variation_ratio,
    uncertainty.mean_sd,
]


def log(probs: list) -> torch.Tensor:
    return torch.tensor(probs, dtype=torch.float64).log()


@pytest.fixture
def logits() -> torch.Tensor:
    return 3 * torch.randn(40, 25, 10, generator=torch.Generator().manual_seed(1))


# Two samples, each sure of another class; two that agree; two that are both undecided.
DISAGREE = log([[[1.0, 0.0]], [[0.0, 1.0]]])
AGREE = log([[[1.0, 0.0]], [[1.0, 0.0]]])
UNDECIDED = log([[[0.5, 0.5]], [[0.5, 0.5]]])


@pytest.mark.parametrize(
    ("function", "disagree", "agree", "undecided"),
    [
        (uncertainty.predictive_entropy, math.log(2), 0, math.log(2)),
        (uncertainty.expected_entropy, 0, 0, math.log(2)),
        (uncertainty.bald, math.log(2), 0, 0),
        (uncertainty.variation_ratio, 0.5, 0, 0),  # ties vote for the first class
        (uncertainty.mean_sd, 0.5, 0, 0),
    ],
)
def test_closed_forms_with_zero_probabilities(function, disagree, agree, undecided):
    assert function(DISAGREE).item() == pytest.approx(disagree)
    assert function(AGREE).item() == pytest.approx(agree)
    assert function(UNDECIDED).item() == pytest.approx(undecided, abs=1e-12)


def test_by_hand():
    samples = log([[[0.8, 0.2, 0.0]], [[0.4, 0.6, 0.0]], [[0.6, 0.4, 0.0]]])
    mean_entropy = stats.entropy([0.6, 0.4])
    entropies = [stats.entropy(p) for p in ([0.8, 0.2], [0.4, 0.6], [0.6, 0.4])]
    assert uncertainty.predictive_entropy(samples).item() == pytest.approx(mean_entropy)
    assert uncertainty.expected_entropy(samples).item() == pytest.approx(np.mean(entropies))
    assert uncertainty.bald(samples).item() == pytest.approx(mean_entropy - np.mean(entropies))
    assert uncertainty.variation_ratio(samples).item() == pytest.approx(1 / 3)
    sd = np.std([0.8, 0.4, 0.6])
    assert uncertainty.mean_sd(samples).item() == pytest.approx((sd + sd + 0) / 3)


def test_entropy_is_scipys(logits):
    expected = stats.entropy(torch.softmax(logits.double(), -1).mean(0).numpy(), axis=-1)
    np.testing.assert_allclose(uncertainty.predictive_entropy(logits).numpy(), expected)


def test_bald_is_the_mean_divergence_from_the_mean(logits):
    probs = torch.softmax(logits.double(), -1)
    divergence = (probs * (probs.log() - probs.mean(0).log())).sum(-1).mean(0)
    torch.testing.assert_close(uncertainty.bald(logits), divergence)


def test_bounds(logits):
    assert (uncertainty.bald(logits) <= uncertainty.predictive_entropy(logits)).all()
    assert (uncertainty.predictive_entropy(logits) <= math.log(10) + 1e-12).all()
    assert (uncertainty.variation_ratio(logits) <= 0.9).all()
    for function in ALL:
        assert (function(logits) >= 0).all()


@pytest.mark.parametrize("function", ALL)
def test_shape_and_precision(function, logits):
    assert function(logits).shape == (25,)
    assert function(logits).dtype == torch.float64


@pytest.mark.parametrize("function", ALL)
def test_extreme_logits_stay_finite(function):
    extreme = torch.tensor([[[1e30, -1e30, 0.0]], [[-1e30, 1e30, 0.0]]])
    assert function(extreme).isfinite().all()


@pytest.mark.parametrize("function", ALL)
def test_log_probabilities_are_logits(function, logits):
    torch.testing.assert_close(function(logits.double().log_softmax(-1)), function(logits))


@pytest.mark.parametrize("function", ALL)
def test_order_of_samples_and_names_of_classes_do_not_matter(function, logits):
    torch.testing.assert_close(function(logits.flip(0)), function(logits))
    torch.testing.assert_close(function(logits.flip(-1)), function(logits))


@pytest.mark.parametrize(
    "function", [uncertainty.bald, uncertainty.variation_ratio, uncertainty.mean_sd]
)
def test_one_sample_does_not_disagree_with_itself(function, logits):
    assert function(logits[:1]).abs().max() < 1e-12


def test_a_deterministic_model_has_no_mutual_information(logits):
    same = logits[:1].expand(100, -1, -1)
    assert uncertainty.bald(same).max() < 1e-12
