"""Metrics against scikit-learn, scipy, closed forms and cases worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import logsumexp
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss, root_mean_squared_error

from bhnbench import metrics


def doubles(values: list) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.fixture
def probs() -> torch.Tensor:
    rng = torch.Generator().manual_seed(1)
    return torch.softmax(2 * torch.randn(500, 7, generator=rng).double(), dim=-1)


@pytest.fixture
def targets() -> torch.Tensor:
    return torch.randint(7, (500,), generator=torch.Generator().manual_seed(2))


def test_accuracy_is_scikit_learns(probs, targets):
    expected = 100 * accuracy_score(targets.numpy(), probs.argmax(-1).numpy())
    assert metrics.accuracy(probs, targets) == pytest.approx(expected)


def test_nll_is_scikit_learns_log_loss(probs, targets):
    expected = log_loss(targets.numpy(), probs.numpy(), labels=np.arange(7))
    assert metrics.nll(probs.log(), targets) == pytest.approx(expected)


def test_nll_of_uniform_probabilities_is_log_n_classes():
    log_probs = torch.full((3, 10), -math.log(10))
    assert metrics.nll(log_probs, torch.tensor([0, 5, 9])) == pytest.approx(math.log(10))


def test_brier_by_hand():
    probs = torch.tensor([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    targets = torch.tensor([0, 1, 2])
    # 0.3^2 + 0.2^2 + 0.1^2 = 0.14; a sure hit: 0; a sure miss: 1 + 1 = 2
    assert metrics.brier(probs, targets) == pytest.approx((0.14 + 0 + 2) / 3)


def test_brier_of_two_classes_is_twice_the_binary_one(targets):
    positive = torch.rand(500, generator=torch.Generator().manual_seed(3)).double()
    labels = targets % 2
    binary = brier_score_loss(labels.numpy(), positive.numpy())
    probs = torch.stack([1 - positive, positive], dim=-1)
    assert metrics.brier(probs, labels) == pytest.approx(2 * binary)


def test_ece_by_hand():
    probs = doubles([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.3, 0.7]])
    targets = torch.tensor([0, 1, 1, 1])
    # bins of 0.1: 0.9 twice, half right: 2 * |0.5 - 0.9|; 0.6 wrong: 0.6; 0.7 right: 0.3
    assert metrics.ece(probs, targets, n_bins=10) == pytest.approx(100 * (0.8 + 0.6 + 0.3) / 4)


def test_ece_counts_a_confidence_of_exactly_one():
    sure = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    assert metrics.ece(sure, torch.tensor([0, 0, 0, 0])) == 0
    assert metrics.ece(sure, torch.tensor([0, 1, 0, 1])) == pytest.approx(50)


def test_ece_takes_a_confidence_above_one_by_rounding():
    probs = torch.tensor([[1.0 + 2**-22, 0.0]])
    assert metrics.ece(probs, torch.tensor([1])) == pytest.approx(100, rel=1e-5)


@pytest.mark.parametrize("n_bins", [10, 15, 25, 29])  # ceil(confidence * 25) is wrong at 7 / 25
def test_an_edge_belongs_to_the_bin_below_it(n_bins):
    for k in range(math.ceil(0.2 * n_bins), n_bins + 1):
        edge, below = k / n_bins, (k - 0.5) / n_bins  # of one bin: (k - 1, k] / n_bins
        probs = doubles([[p] + 9 * [(1 - p) / 9] for p in (edge, below)])
        targets = torch.tensor([0, 1])  # one right, one wrong: in one bin their gaps cancel
        together = abs((1 - edge) - below) / 2
        assert metrics.ece(probs, targets, n_bins=n_bins) == pytest.approx(100 * together)


def test_ece_of_a_calibrated_forecast_is_within_its_sampling_error():
    rng = torch.Generator().manual_seed(4)
    n = 200_000
    confidence = 0.5 + 0.5 * torch.rand(n, generator=rng).double()
    right = torch.rand(n, generator=rng).double() < confidence
    probs = torch.stack([confidence, 1 - confidence], dim=-1)
    # Sum over 8 bins of |mean gap| * share; each mean gap has sd <= 0.5 / sqrt(n_bin).
    bound = 100 * 3 * 0.5 * math.sqrt(8 / n)
    assert metrics.ece(probs, (~right).long()) < bound


def test_mixture_log_probs_is_the_log_of_the_mean_probability():
    logits = torch.randn(20, 6, 4, generator=torch.Generator().manual_seed(5)).double()
    expected = torch.softmax(logits, -1).mean(0).log()
    torch.testing.assert_close(metrics.mixture_log_probs(logits), expected)


def test_mixture_log_probs_survives_large_logits():
    logits = torch.tensor([[[1e4, 0.0]], [[1e4, 0.0]]])
    assert metrics.mixture_log_probs(logits).tolist() == [[0.0, -1e4]]


def test_mixture_log_likelihood_is_scipys():
    rng = np.random.default_rng(6)
    means, sds = rng.normal(size=(30, 50)), rng.uniform(0.1, 2, size=(30, 50))
    values = rng.normal(size=50)
    densities = stats.norm(means, sds).logpdf(values)
    expected = (logsumexp(densities, axis=0) - math.log(30)).mean()
    assert metrics.mixture_log_likelihood(torch.from_numpy(densities)) == pytest.approx(expected)


def test_mixture_log_likelihood_survives_tiny_densities():
    assert metrics.mixture_log_likelihood(torch.full((8, 3), -1e5)) == pytest.approx(-1e5)


def test_rmse_is_scikit_learns():
    rng = torch.Generator().manual_seed(7)
    predictions, values = torch.randn(40, 2, generator=rng), torch.randn(40, 2, generator=rng)
    expected = math.sqrt(((predictions - values) ** 2).mean())
    assert metrics.rmse(predictions, values) == pytest.approx(expected)
    one = root_mean_squared_error(values[:, 0].numpy(), predictions[:, 0].numpy())
    assert metrics.rmse(predictions[:, :1], values[:, :1]) == pytest.approx(float(one), rel=1e-5)


def test_scores_do_not_depend_on_the_order_of_examples(probs, targets):
    order = torch.randperm(500, generator=torch.Generator().manual_seed(8))
    for score in (metrics.accuracy, metrics.brier, metrics.ece):
        shuffled = score(probs[order], targets[order])
        assert shuffled == pytest.approx(score(probs, targets), rel=1e-5)


def test_names_are_unique_and_units_are_given():
    declared = [
        metrics.ACCURACY,
        metrics.NLL,
        metrics.BRIER,
        metrics.ECE,
        metrics.LOG_LIKELIHOOD,
        metrics.RMSE,
    ]
    assert len({metric.name for metric in declared}) == len(declared)
    assert metrics.ACCURACY.unit == metrics.ECE.unit == "%"
    assert metrics.NLL.unit == metrics.LOG_LIKELIHOOD.unit == "nats"
