"""Uncertainty of predictive samples: closed forms, limits and bounds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from bhnbench import uncertainty


def of_logits(score):
    return lambda logits: score(uncertainty.class_probabilities(logits))


predictive_entropy = of_logits(uncertainty.predictive_entropy)
expected_entropy = of_logits(uncertainty.expected_entropy)
bald = of_logits(uncertainty.bald)
variation_ratio = of_logits(uncertainty.variation_ratio)
least_confidence = of_logits(uncertainty.least_confidence)
mean_sd = of_logits(uncertainty.mean_sd)
ALL = [
    predictive_entropy,
    expected_entropy,
    bald,
    variation_ratio,
    least_confidence,
    mean_sd,
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
        (predictive_entropy, math.log(2), 0, math.log(2)),
        (expected_entropy, 0, 0, math.log(2)),
        (bald, math.log(2), 0, 0),
        (variation_ratio, 0.5, 0, 0),  # ties vote for the first class
        (least_confidence, 0.5, 0, 0.5),
        (mean_sd, 0.5, 0, 0),
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
    assert predictive_entropy(samples).item() == pytest.approx(mean_entropy)
    assert expected_entropy(samples).item() == pytest.approx(np.mean(entropies))
    assert bald(samples).item() == pytest.approx(mean_entropy - np.mean(entropies))
    assert variation_ratio(samples).item() == pytest.approx(1 / 3)
    assert least_confidence(samples).item() == pytest.approx(0.4)
    sd = np.std([0.8, 0.4, 0.6])
    assert mean_sd(samples).item() == pytest.approx((sd + sd + 0) / 3)


def test_two_variation_ratios():
    """By votes (of the mode) and by the mean probability: which class is most likely differs."""
    samples = log([[[0.51, 0.49]], [[0.51, 0.49]], [[0.51, 0.49]], [[0.0, 1.0]]])
    assert variation_ratio(samples).item() == pytest.approx(1 / 4)
    assert least_confidence(samples).item() == pytest.approx(3 * 0.51 / 4)


def test_variation_ratio_is_that_of_scipys_mode(logits):
    votes = logits.argmax(-1).numpy()
    expected = 1 - stats.mode(votes, axis=0).count / len(votes)
    np.testing.assert_allclose(variation_ratio(logits).numpy(), expected)


def test_least_confidence_is_one_minus_the_largest_mean_probability(logits):
    expected = 1 - torch.softmax(logits.double(), -1).mean(0).max(-1).values
    torch.testing.assert_close(least_confidence(logits), expected)


def test_least_confidence_tells_apart_what_is_nearly_certain():
    """Where one minus the probability is 0 in float64."""
    doubt = torch.tensor([40.0, 60.0, 80.0])
    logits = torch.stack([doubt, torch.zeros(3)], dim=-1).unsqueeze(0)
    np.testing.assert_allclose(least_confidence(logits).numpy(), np.exp(-doubt.numpy()), rtol=1e-5)


def test_mean_sd_is_numpys(logits):
    expected = torch.softmax(logits.double(), -1).numpy().std(0).mean(-1)
    np.testing.assert_allclose(mean_sd(logits).numpy(), expected)


def test_every_score_is_highest_for_a_planted_outlier(logits):
    """Samples agree and are certain of all images but one, of which each says something else."""
    certain = 20.0 * torch.nn.functional.one_hot(torch.arange(25) % 10, 10).float()
    samples = certain + logits / 3
    samples[:, 7] = 20.0 * torch.nn.functional.one_hot(torch.arange(40) % 10, 10).float()
    for function in ALL:
        if function is not expected_entropy:  # each sample is certain of its class
            assert function(samples).argmax() == 7
    samples[:, 7] = 0
    assert expected_entropy(samples).argmax() == 7


def test_entropy_is_scipys(logits):
    expected = stats.entropy(torch.softmax(logits.double(), -1).mean(0).numpy(), axis=-1)
    np.testing.assert_allclose(predictive_entropy(logits).numpy(), expected)


def test_bald_is_the_mean_divergence_from_the_mean(logits):
    probs = torch.softmax(logits.double(), -1)
    divergence = (probs * (probs.log() - probs.mean(0).log())).sum(-1).mean(0)
    torch.testing.assert_close(bald(logits), divergence)


def test_bounds(logits):
    assert (bald(logits) <= predictive_entropy(logits)).all()
    assert (predictive_entropy(logits) <= math.log(10) + 1e-12).all()
    assert (variation_ratio(logits) <= 0.9).all()
    assert (least_confidence(logits) <= 0.9 + 1e-12).all()
    assert (mean_sd(logits) <= 0.3 + 1e-12).all()  # sqrt(0.1 * 0.9)
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


@pytest.mark.parametrize("function", [bald, variation_ratio, mean_sd])
def test_one_sample_does_not_disagree_with_itself(function, logits):
    assert function(logits[:1]).abs().max() < 1e-12


def test_a_deterministic_model_has_no_mutual_information(logits):
    same = logits[:1].expand(100, -1, -1)
    assert bald(same).max() < 1e-12
