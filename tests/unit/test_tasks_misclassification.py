"""Error detection with classifiers whose errors and doubts are known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from bhnbench_doubles.fits import Guess, Oracle, run_task

from bhnbench.errors import DataError
from bhnbench_tasks import image_task
from bhnbench_tasks.datasets import load_dataset
from bhnbench_tasks.misclassification import Misclassification, error_scores
from bhnbench_tasks.scores import SCORES

TASK = Misclassification(n_samples=4)
N = {"validation": 399, "test": 398}


class Errs:
    """Wrong about all 3s, and of them and of the others as unsure as it is told.

    Its samples of an image differ by ``spread`` in one logit, and agree on average.
    """

    def __init__(self, *, doubt=0.0, doubt_of_others=0.0, spread=0.0, test_spread=None) -> None:
        dataset = load_dataset("digits")
        splits = [dataset.train, dataset.validation, dataset.holdout("test")]
        self.oracle, self.test = Oracle(splits), splits[-1].inputs
        self.doubt, self.doubt_of_others = doubt, doubt_of_others
        self.spread = spread
        self.test_spread = spread if test_spread is None else test_spread

    def sample(self, inputs, n_samples, *, rng):
        targets = self.oracle.sample(inputs, 1, rng=rng)[0].argmax(-1)
        is_3 = targets == 3
        answers = torch.where(is_3, 8, targets)
        sureness = torch.where(is_3, 20 - self.doubt, 20 - self.doubt_of_others)
        logits = torch.nn.functional.one_hot(answers, 10) * sureness.unsqueeze(-1)
        logits = logits.repeat(n_samples, 1, 1)
        is_test = (torch.cdist(inputs, self.test).min(-1).values < 1e-3) & is_3
        change = torch.where(is_test, self.test_spread, self.spread * is_3.float())
        logits[::2, :, 0] += change
        logits[1::2, :, 0] -= change
        return logits


def n_errors(holdout: str) -> int:
    return int((load_dataset("digits").holdout(holdout).targets == 3).sum())


@pytest.mark.parametrize("holdout", ["validation", "test"])
def test_who_doubts_its_errors_finds_them_all(holdout):
    outcome = run_task(TASK, Errs(doubt=15), holdout=holdout)
    n, e = N[holdout], n_errors(holdout)
    risks = [max(0, k - (n - e)) / k for k in range(1, n + 1)]  # errors come last
    assert outcome.scores == pytest.approx(
        {
            "auroc": 100,
            "aupr_error": 100,
            "aupr_success": 100,
            "aurc": 100 * sum(risks) / n,
            "accuracy": 100 * (n - e) / n,
            "base_rate": 100 * e / n,
        }
    )
    assert outcome.tables["risk_coverage"]["risk"][[0, -1]] == pytest.approx([0, 100 * e / n])


def test_who_doubts_all_but_its_errors_finds_none():
    outcome = run_task(Misclassification(score="entropy", n_samples=2), Errs(doubt_of_others=15))
    assert outcome.scores["auroc"] == 0
    n, e = N["validation"], n_errors("validation")
    assert outcome.scores["aupr_error"] == pytest.approx(100 * e / n)  # found when all are


def test_doubt_at_random_finds_as_many_as_chance():
    """Within four standard errors of the Mann-Whitney statistic of unrelated scores."""
    rng = torch.Generator().manual_seed(1)
    n, e = 4000, 400
    is_wrong = torch.arange(n) < e
    scores = error_scores(torch.rand(n, generator=rng), is_wrong)
    standard_error = 100 * math.sqrt((n + 1) / (12 * e * (n - e)))
    assert scores["auroc"] == pytest.approx(50, abs=4 * standard_error)
    assert scores["base_rate"] == pytest.approx(10)
    assert scores["aupr_error"] == pytest.approx(10, abs=3)
    assert scores["aupr_success"] == pytest.approx(90, abs=3)
    assert scores["aurc"] == pytest.approx(10, abs=3)


def test_four_images_by_hand():
    """Ranked from the most doubtful: wrong, right, wrong, right."""
    score, is_wrong = torch.tensor([4.0, 3.0, 2.0, 1.0]), torch.tensor([1, 0, 1, 0]).bool()
    assert error_scores(score, is_wrong) == pytest.approx(
        {
            "auroc": 100 * 3 / 4,
            "aupr_error": 100 * (1 + 2 / 3) / 2,
            "aupr_success": 100 * (1 + 2 / 3) / 2,
            "aurc": 100 * (0 + 1 / 2 + 1 / 3 + 2 / 4) / 4,
            "accuracy": 50,
            "base_rate": 50,
        }
    )


@pytest.mark.parametrize("score", SCORES)
def test_every_score_is_high_where_samples_disagree(score):
    answers = Errs(doubt=15, spread=3)
    outcome = run_task(Misclassification(score=score, n_samples=4), answers, holdout="test")
    assert outcome.scores["auroc"] == 100


def test_the_score_is_chosen_on_validation_alone():
    """Errors are doubted by the disagreement of samples, but not on test data."""
    answers = Errs(doubt_of_others=15, spread=15, test_spread=0)
    for holdout, auroc in (("validation", 100.0), ("test", 50.0)):
        outcome = run_task(TASK, answers, holdout=holdout)
        assert outcome.tables["scores"]["chosen"].tolist() == [0, 0, 1, 0]
        assert outcome.scores["auroc"] == auroc
    named = run_task(Misclassification(score="entropy", n_samples=4), answers, holdout="test")
    assert named.scores["auroc"] == 0
    assert named.tables["scores"]["validation_auroc"][0] < 100


@pytest.fixture
def oracle() -> Oracle:
    dataset = load_dataset("digits")
    return Oracle([dataset.train, dataset.validation, dataset.holdout("test")])


def test_without_errors_there_is_nothing_to_find(oracle):
    reports: list = []
    outcome = run_task(TASK, oracle, holdout="test", reports=reports)
    assert outcome.scores == {
        "auroc": 50, "aupr_error": 0, "aupr_success": 100,
        "aurc": 0, "accuracy": 100, "base_rate": 0,
    }  # fmt: skip
    assert all(np.isfinite(c).all() for table in outcome.tables.values() for c in table.values())
    assert reports == [(1, {"accuracy": 50.0})]
    for draw in TASK.figures.values():
        assert draw({"oracle": [outcome, outcome]}).axes


def test_without_right_answers_neither():
    scores = error_scores(torch.rand(9), torch.ones(9).bool())
    assert scores == pytest.approx(
        {
            "auroc": 50, "aupr_error": 100, "aupr_success": 0,
            "aurc": 100, "accuracy": 0, "base_rate": 100,
        }
    )  # fmt: skip


def test_who_is_in_equal_doubt_of_all_is_at_chance():
    outcome = run_task(TASK, Guess(), holdout="test")
    assert outcome.tables["scores"]["auroc"].tolist() == [50.0] * 4
    base_rate = outcome.scores["base_rate"]
    assert [outcome.scores[name] for name in ("aupr_error", "aurc")] == pytest.approx(
        [base_rate, base_rate]
    )


def test_a_search_does_not_touch_test_rows(oracle, monkeypatch):
    def poisoned():
        raise DataError("the test split was read")

    dataset = replace(load_dataset("digits"), read_test=poisoned)
    monkeypatch.setattr(image_task, "load_dataset", lambda name: dataset)
    run_task(TASK, oracle, holdout="validation")
    with pytest.raises(DataError, match="was read"):
        run_task(TASK, oracle, holdout="test")
