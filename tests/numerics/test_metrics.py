"""Metrics against scikit-learn, scipy, closed forms and cases worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import logsumexp
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss, root_mean_squared_error
from torchmetrics.functional.classification import multiclass_calibration_error

from bhnbench import metrics
from bhnbench.errors import DivergedError


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


@pytest.mark.parametrize("n_bins", [1, 2, 15])
@pytest.mark.parametrize("sharpness", [0.0, 1.0, 100.0])
def test_ece_is_that_of_torchmetrics(targets, sharpness, n_bins):
    """Also where all are undecided, and where all are sure."""
    logits = torch.randn(500, 7, generator=torch.Generator().manual_seed(9))
    probs = torch.softmax(sharpness * logits, dim=-1)
    expected = multiclass_calibration_error(probs, targets, num_classes=7, n_bins=n_bins)
    ours = metrics.ece(probs, targets, n_bins=n_bins)
    assert ours == pytest.approx(100 * expected.item(), rel=1e-4)


def test_reliability_bins_by_hand():
    probs = doubles([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.4, 0.6], [1.0, 0.0]])
    bins = metrics.reliability_bins(probs, torch.tensor([0, 1, 1, 1, 0]), n_bins=4)
    # (0.5, 0.75] holds 0.6, wrong, and 0.6, right; (0.75, 1] holds 0.9, 0.8 (wrong) and 1
    assert bins["n"].tolist() == [0, 0, 2, 3]
    assert bins["confidence"].tolist() == pytest.approx([0, 0, 60, 90])
    assert bins["accuracy"].tolist() == pytest.approx([0, 0, 50, 200 / 3])


def test_reliability_bins_are_scikit_learns_curve():
    """Of two classes with the first as the sure one, so that the confidence is its probability."""
    rng = torch.Generator().manual_seed(10)
    confidence = 0.5 + 0.5 * torch.rand(1000, generator=rng).double()
    is_first = torch.rand(1000, generator=rng) < 0.8
    probs = torch.stack([confidence, 1 - confidence], dim=-1)
    bins = metrics.reliability_bins(probs, (~is_first).long())
    accuracy, mean_confidence = calibration_curve(is_first.numpy(), confidence.numpy(), n_bins=15)
    filled = bins["n"] > 0
    np.testing.assert_allclose(bins["accuracy"][filled].numpy(), 100 * accuracy)
    np.testing.assert_allclose(bins["confidence"][filled].numpy(), 100 * mean_confidence)
    assert bins["n"].sum() == 1000


@pytest.mark.parametrize("confidence", [0.5, 1.0])
@pytest.mark.parametrize("right", [True, False])
def test_one_example(confidence, right):
    probs = doubles([[confidence, 1 - confidence]])
    targets = torch.tensor([0 if right else 1])
    assert metrics.accuracy(probs, targets) == 100 * right
    assert metrics.ece(probs, targets) == pytest.approx(100 * abs(right - confidence))
    assert metrics.brier(probs, targets) == pytest.approx(2 * (right - confidence) ** 2)


def test_classes_that_never_occur_change_nothing(probs, targets):
    wider = torch.cat([probs, torch.zeros(500, 3).double()], dim=-1)
    for score in (metrics.accuracy, metrics.brier, metrics.ece):
        assert score(wider, targets) == pytest.approx(score(probs, targets))


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


def test_no_class_is_the_likeliest_of_what_is_no_number(probs, targets):
    probs[5, 2] = math.nan
    with pytest.raises(DivergedError, match="must be numbers, but some are nan"):
        metrics.accuracy(probs, targets)
