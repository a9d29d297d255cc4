"""Detection against scikit-learn, torchmetrics, counting all pairs, and cases by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu
from sklearn import metrics as sklearn_metrics
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from bhnbench import detection
from bhnbench.errors import DivergedError

INF = math.inf


def labels(text: str) -> torch.Tensor:
    """``"+--"`` as booleans."""
    return torch.tensor([mark == "+" for mark in text])


def doubles(values: list) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def random_case(seed: int, n_values: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    """300 scores, of few different values or of many, and labels that lean on them."""
    rng = torch.Generator().manual_seed(seed)
    scores = torch.randn(300, generator=rng)
    is_positive = scores + torch.randn(300, generator=rng) > 0.8
    return (scores if n_values is None else (scores * n_values / 4).round()), is_positive


CASES = [random_case(seed, n_values) for seed in range(4) for n_values in (None, 3, 30)]


@pytest.mark.parametrize(("scores", "is_positive"), CASES)
def test_areas_are_those_of_scikit_learn_and_torchmetrics(scores, is_positive):
    y, s = is_positive.numpy(), scores.numpy()
    auroc, aupr = detection.auroc(scores, is_positive), detection.aupr(scores, is_positive)
    assert auroc == pytest.approx(100 * sklearn_metrics.roc_auc_score(y, s), rel=1e-12)
    assert aupr == pytest.approx(100 * sklearn_metrics.average_precision_score(y, s), rel=1e-12)
    u = mannwhitneyu(s[y], s[~y]).statistic
    assert auroc == pytest.approx(100 * u / (y.sum() * (~y).sum()), rel=1e-12)
    # torchmetrics puts scores through a sigmoid unless they are in [0, 1]
    unit, target = (scores - scores.min()) / (scores.max() - scores.min()), is_positive.long()
    assert auroc == pytest.approx(100 * binary_auroc(unit, target).item(), rel=1e-5)
    assert aupr == pytest.approx(100 * binary_average_precision(unit, target).item(), rel=1e-5)


@pytest.mark.parametrize(("scores", "is_positive"), CASES)
def test_the_curve_is_scikit_learns(scores, is_positive):
    fpr, tpr = detection.roc_curve(scores, is_positive)
    expected_fpr, expected_tpr, _ = sklearn_metrics.roc_curve(
        is_positive.numpy(), scores.numpy(), drop_intermediate=False
    )
    np.testing.assert_allclose(fpr.numpy(), expected_fpr)
    np.testing.assert_allclose(tpr.numpy(), expected_tpr)
    enough = expected_fpr[expected_tpr >= 0.95].min()
    assert detection.fpr_at_tpr(scores, is_positive) == pytest.approx(100 * enough)


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=12))
def test_auroc_is_the_share_of_pairs_in_order(examples):
    positives = [score for score, positive in examples if positive]
    negatives = [score for score, positive in examples if not positive]
    pairs = [(p > n) + (p == n) / 2 for p, n in itertools.product(positives, negatives)]
    expected = 100 * sum(pairs) / len(pairs) if pairs else 50
    scores, is_positive = (torch.tensor(column) for column in zip(*examples, strict=True))
    assert detection.auroc(scores, is_positive) == pytest.approx(expected)
    reverse = detection.auroc(-scores, is_positive)
    assert reverse == pytest.approx(100 - expected)


def test_ties_by_hand():
    scores, is_positive = doubles([3, 2, 2, 2, 1]), labels("++--+")
    # pairs in order: 3 beats two; 2 ties with two; 1 loses two: (2 + 1 + 0) / 6
    assert detection.auroc(scores, is_positive) == pytest.approx(100 * 3 / 6)
    # thresholds 3, 2, 1: precision 1, 2/4, 3/5, and a third of the recall at each
    assert detection.aupr(scores, is_positive) == pytest.approx(100 * (1 + 2 / 4 + 3 / 5) / 3)
    fpr, tpr = detection.roc_curve(scores, is_positive)
    assert fpr.tolist() == [0, 0, 1, 1]
    assert tpr.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])


def test_fpr_is_that_of_the_first_threshold_that_finds_enough():
    scores = torch.arange(40, 0, -1)
    is_positive = labels("+" * 18 + "-" * 5 + "+" + "-" * 15 + "+")
    # 19 of 20 positives are exactly 95 %, above 5 of 20 negatives
    assert detection.fpr_at_tpr(scores, is_positive) == pytest.approx(25)
    assert detection.fpr_at_tpr(scores, is_positive, tpr=0.951) == pytest.approx(100)
    assert detection.fpr_at_tpr(scores, is_positive, tpr=0.9) == 0


@pytest.mark.parametrize("n_positive", [20, 40, 60, 100, 140, 1000, 10_000])
def test_a_share_of_exactly_95_percent_is_enough(n_positive):
    n_found = n_positive * 95 // 100
    is_positive = labels("+" * n_found + "-" + "+" * (n_positive - n_found))
    assert detection.fpr_at_tpr(-torch.arange(len(is_positive)), is_positive) == 0


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_a_perfect_detector_and_its_opposite(scale):
    rng = torch.Generator().manual_seed(1)
    is_positive = torch.rand(997, generator=rng) < 0.3
    scores = scale * (is_positive + torch.rand(997, generator=rng).double())
    assert detection.auroc(scores, is_positive) == 100
    assert detection.aupr(scores, is_positive) == pytest.approx(100, abs=1e-12)
    assert detection.fpr_at_tpr(scores, is_positive) == 0
    assert detection.auroc(-scores, is_positive) == 0
    assert detection.fpr_at_tpr(-scores, is_positive) == 100


def test_a_random_detector_is_at_50_within_its_monte_carlo_error():
    rng = torch.Generator().manual_seed(2)
    n, n_positive = 20_000, 4000
    scores = torch.rand(n, generator=rng)
    is_positive = torch.arange(n) < n_positive
    n_negative = n - n_positive
    sd = 100 * math.sqrt((n + 1) / (12 * n_positive * n_negative))  # of the rank-sum statistic
    assert abs(detection.auroc(scores, is_positive) - 50) < 4 * sd
    assert abs(detection.aupr(scores, is_positive) - 20) < 2
    assert abs(detection.fpr_at_tpr(scores, is_positive) - 95) < 2


@pytest.mark.parametrize("outlier", [1e-9, 1.0, INF])
def test_a_planted_outlier_fixes_the_direction(outlier):
    scores = torch.zeros(50, dtype=torch.float64)
    scores[17] = outlier
    is_outlier = torch.arange(50) == 17
    assert detection.auroc(scores, is_outlier) == 100
    assert detection.aupr(scores, is_outlier) == 100
    assert detection.fpr_at_tpr(scores, is_outlier) == 0
    in_doubt, undecided = -scores, torch.zeros(50)
    assert detection.aurc(in_doubt, ~is_outlier) < detection.aurc(undecided, ~is_outlier)


def test_infinite_scores_are_scores():
    scores, is_positive = doubles([INF, INF, 0, -INF, -INF]), labels("+--+-")
    finite = doubles([2, 2, 0, -2, -2])
    for score in (detection.auroc, detection.aupr, detection.fpr_at_tpr, detection.aurc):
        assert score(scores, is_positive) == score(finite, is_positive)


@pytest.mark.parametrize(
    ("marks", "base_rate"), [("++++", 100), ("----", 0), ("+", 100), ("-", 0)]
)
@pytest.mark.parametrize("constant", [True, False])
def test_without_a_class_the_result_is_that_of_a_constant_score(marks, base_rate, constant):
    is_positive = labels(marks)
    scores = torch.zeros(len(marks)) if constant else torch.arange(len(marks)).float()
    assert detection.auroc(scores, is_positive) == 50
    assert detection.aupr(scores, is_positive) == base_rate
    assert detection.fpr_at_tpr(scores, is_positive) == 100
    table = detection.roc_table(scores, is_positive)
    np.testing.assert_allclose(table["tpr"], table["fpr"])


def test_a_constant_score_knows_nothing():
    is_positive = labels("+-+--")
    scores = torch.full((5,), 0.3)
    assert detection.auroc(scores, is_positive) == 50
    assert detection.aupr(scores, is_positive) == pytest.approx(40)
    assert detection.fpr_at_tpr(scores, is_positive) == 100
    np.testing.assert_allclose(detection.roc_table(scores, is_positive)["tpr"], np.arange(101))


@pytest.mark.parametrize(("scores", "is_positive"), CASES)
def test_the_order_of_examples_does_not_matter(scores, is_positive):
    order = torch.randperm(300, generator=torch.Generator().manual_seed(3))
    for score in (detection.auroc, detection.aupr, detection.fpr_at_tpr, detection.aurc):
        assert score(scores[order], is_positive[order]) == score(scores, is_positive)
    shuffled = detection.risk_coverage(scores[order], is_positive[order])
    assert torch.equal(shuffled[1], detection.risk_coverage(scores, is_positive)[1])


@pytest.mark.parametrize(("scores", "is_positive"), CASES)
def test_only_the_order_of_scores_matters(scores, is_positive):
    stretched = scores.double().mul(3).exp()
    for score in (detection.auroc, detection.aupr, detection.fpr_at_tpr, detection.aurc):
        assert score(stretched, is_positive) == score(scores, is_positive)


@pytest.mark.parametrize(("scores", "is_positive"), CASES)
def test_a_table_lies_on_the_curve(scores, is_positive):
    table = detection.roc_table(scores, is_positive)
    fpr, tpr = (100 * rates.numpy() for rates in detection.roc_curve(scores, is_positive))
    assert len(table["fpr"]) == len(table["tpr"]) == 101
    assert (np.diff(table["tpr"]) >= 0).all()
    for x, y in zip(table["fpr"], table["tpr"], strict=True):
        last = np.flatnonzero(fpr <= x + 1e-9)[-1]
        following = min(last + 1, len(fpr) - 1)
        share = (x - fpr[last]) / (fpr[following] - fpr[last]) if following > last else 0
        assert y == pytest.approx(tpr[last] + share * (tpr[following] - tpr[last]), abs=1e-6)


def test_a_table_of_a_perfect_detector_is_100_from_the_start():
    table = detection.roc_table(doubles([2, 1]), labels("+-"))
    assert (table["tpr"] == 100).all()


def test_risk_coverage_by_hand():
    confidence, correct = doubles([0.9, 0.8, 0.7, 0.6]), labels("+-++")
    coverage, risk = detection.risk_coverage(confidence, correct)
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1]
    assert risk.tolist() == pytest.approx([0, 1 / 2, 1 / 3, 1 / 4])
    expected = 100 * (0 + 1 / 2 + 1 / 3 + 1 / 4) / 4
    assert detection.aurc(confidence, correct) == pytest.approx(expected)


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=6))
def test_tied_confidences_have_the_mean_risk_of_all_orders(examples):
    def risks(order: tuple[int, ...]) -> np.ndarray:
        """Of a stable sort after the examples were put in this order."""
        chosen = sorted((examples[i] for i in order), key=lambda example: -example[0])
        wrong = np.array([not correct for _, correct in chosen])
        return wrong.cumsum() / np.arange(1, len(wrong) + 1)

    orders = list(itertools.permutations(range(len(examples))))
    expected = np.mean([risks(order) for order in orders], axis=0)
    confidence, correct = (torch.tensor(column) for column in zip(*examples, strict=True))
    _, risk = detection.risk_coverage(confidence, correct)
    np.testing.assert_allclose(risk.numpy(), expected, atol=1e-12)
    assert detection.aurc(confidence, correct) == pytest.approx(100 * expected.mean())


def test_aurc_between_its_bounds():
    confidence = torch.rand(1000, generator=torch.Generator().manual_seed(4)).double()
    assert detection.aurc(confidence, torch.ones(1000, dtype=torch.bool)) == 0
    assert detection.aurc(confidence, torch.zeros(1000, dtype=torch.bool)) == 100
    correct = confidence > 0.2  # the best order: errors come last
    error = (~correct).double().mean().item()
    best = error + (1 - error) * math.log(1 - error)  # integral of max(0, 1 - (1 - e) / c)
    assert detection.aurc(confidence, correct) == pytest.approx(100 * best, abs=0.2)
    assert detection.aurc(torch.zeros(1000), correct) == pytest.approx(100 * error)


@pytest.mark.parametrize("correct", [True, False])
def test_one_example(correct):
    outcome = torch.tensor([correct])
    coverage, risk = detection.risk_coverage(torch.tensor([1.0]), outcome)
    assert coverage.tolist() == [1]
    assert risk.tolist() == [1 - correct]
    table = detection.risk_coverage_table(torch.tensor([0.0]), outcome)
    assert (table["risk"] == 100 * (1 - correct)).all()


def test_confidences_of_exactly_0_and_1():
    confidence, correct = doubles([1, 1, 0, 0]), labels("+-+-")
    _, risk = detection.risk_coverage(confidence, correct)
    assert risk.tolist() == [0.5, 0.5, 0.5, 0.5]
    assert detection.auroc(confidence, correct) == 50
    assert detection.auroc(confidence, labels("++--")) == 100


@pytest.mark.parametrize("n", [1, 3, 100, 150, 1234])
def test_a_risk_table_keeps_no_more_than_its_coverage_takes(n):
    rng = torch.Generator().manual_seed(5)
    confidence = torch.rand(n, generator=rng)
    correct = torch.rand(n, generator=rng) < 0.7
    coverage, risk = detection.risk_coverage(confidence, correct)
    table = detection.risk_coverage_table(confidence, correct)
    assert table["coverage"].tolist() == list(range(1, 101))
    for percentage, value in zip(table["coverage"], table["risk"], strict=True):
        kept = np.flatnonzero(100 * coverage.numpy() >= percentage - 1e-9)[0]
        assert value == pytest.approx(100 * risk[kept].item())


FUNCTIONS = [
    detection.auroc,
    detection.aupr,
    detection.fpr_at_tpr,
    detection.roc_curve,
    detection.roc_table,
    detection.risk_coverage,
    detection.risk_coverage_table,
    detection.aurc,
]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_what_cannot_be_ranked_is_refused(function):
    with pytest.raises(DivergedError, match="1 are NaN"):
        function(doubles([0, math.nan]), labels("+-"))
    for scores, is_positive in (
        (torch.zeros(0), labels("")),
        (torch.zeros(3), labels("+-")),
        (torch.zeros(2, 1), labels("+-")),
    ):
        with pytest.raises(ValueError, match=r"must be \(n,\) with n >= 1"):
            function(scores, is_positive)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_inputs_are_not_changed_and_need_no_gradient(function):
    scores, is_positive = torch.tensor([0.1, 0.7, 0.3], requires_grad=True), labels("+-+")
    function(scores, is_positive)
    assert scores.tolist() == torch.tensor([0.1, 0.7, 0.3]).tolist()
    assert is_positive.tolist() == [True, False, True]


def test_every_metric_says_what_it_is():
    declared = {
        detection.AUROC: "maximize",
        detection.AUPR_IN: "maximize",
        detection.AUPR_OUT: "maximize",
        detection.FPR95: "minimize",
        detection.AURC: "minimize",
    }
    assert len({metric.name for metric in declared}) == len(declared)
    for metric, direction in declared.items():
        assert (metric.direction, metric.unit) == (direction, "%")
