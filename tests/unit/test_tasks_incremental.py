"""Incremental learning with fits that know, forget, or take a prior."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from bhnbench_doubles.fits import Fit, Guess, Oracle, run_task

from bhnbench.contract import Problem, Split
from bhnbench.errors import DataError, UnsupportedError
from bhnbench_tasks import image_task
from bhnbench_tasks.datasets import load_dataset
from bhnbench_tasks.incremental import Incremental, forgetting

BY_CLASS = {"n_samples": 2, "parts": "classes"}


def everything() -> Oracle:
    dataset = load_dataset("digits")
    return Oracle([dataset.train, dataset.validation, dataset.holdout("test")])


class OfThePart:
    """Knows the classes of its own part alone, and takes everything for the first of them."""

    def __init__(self, problem: Problem) -> None:
        self.oracle, self.classes = everything(), problem.train.targets.unique()

    def sample(self, inputs, n_samples, *, rng):
        logits = self.oracle.sample(inputs, n_samples, rng=rng).clone()
        logits[..., self.classes[0]] += 1
        unknown = torch.ones(10, dtype=torch.bool)
        unknown[self.classes] = False
        logits[..., unknown] = -1000
        return logits


@pytest.mark.parametrize("holdout", ["validation", "test"])
def test_an_oracle_forgets_nothing(holdout):
    reports: list = []
    outcome = run_task(Incremental(**BY_CLASS), everything(), holdout=holdout, reports=reports)
    assert outcome.scores["accuracy"] == 100
    assert outcome.scores["forgetting"] == 0
    assert [step for step, _ in reports] == [1, 2, 3, 4, 5]
    assert outcome.tables["parts"]["n_seen"][-1] == 1000


def test_who_knows_the_last_part_alone_has_forgotten_the_others():
    outcome = run_task(Incremental(**BY_CLASS), Fit(OfThePart))
    targets = load_dataset("digits").validation.targets
    assert outcome.scores["accuracy"] == pytest.approx(100 * (targets >= 8).double().mean().item())
    assert outcome.scores["forgetting"] == 100
    by_part = outcome.tables["by_part"]
    diagonal = by_part["after"] == by_part["part"]
    assert set(by_part["accuracy"][diagonal]) == {100}
    assert set(by_part["accuracy"][~diagonal]) == {0}


def test_forgetting_by_hand():
    """Part 0 was best (90) after part 1, part 1 (80) after itself; the last part counts not."""
    rows = [{"by_part": [70]}, {"by_part": [90, 80]}, {"by_part": [60, 85, 50]}]
    assert forgetting(rows) == pytest.approx(((90 - 60) + (80 - 85)) / 2)
    assert forgetting(rows[:1]) == 0


@pytest.mark.parametrize("parts", ["random", "classes"])
def test_the_parts_are_the_training_images_dealt_out(parts):
    fit = Fit(lambda problem: Guess())
    run_task(Incremental(n_samples=1, parts=parts), fit)
    train = load_dataset("digits").train
    rows = [row for problem in fit.problems for row in problem.train.inputs.tolist()]
    assert sorted(rows) == sorted(train.inputs.tolist())
    sizes = [len(problem.train) for problem in fit.problems]
    for problem in fit.problems:
        classes = problem.train.targets.unique()
        assert problem.validation.targets.unique().tolist() == classes.tolist()
        assert len(classes) == (10 if parts == "random" else 2)
    assert parts == "classes" or max(sizes) - min(sizes) <= 1


def test_the_posterior_of_a_part_is_the_prior_of_the_next():
    given: list = []

    def answer(problem: Problem) -> Guess:
        given.append(Guess())
        return given[-1]

    fit = Fit(answer)
    outcome = run_task(Incremental(n_parts=3, n_samples=1), fit)
    assert [problem.prior for problem in fit.problems] == [None, *given[:2]]
    assert fit.warm_starts == [None, *given[:2]]
    assert outcome.tables["parts"]["took_prior"].tolist() == [0, 1, 1]


def test_who_takes_no_prior_goes_on_from_its_parameters():
    def answer(problem: Problem) -> Guess:
        if problem.prior is not None:
            raise UnsupportedError("it cannot take a prior")
        return Guess()

    fit = Fit(answer)
    outcome = run_task(Incremental(n_parts=3, n_samples=1), fit)
    assert outcome.tables["parts"]["took_prior"].tolist() == [0, 0, 0]
    assert [start is None for start in fit.warm_starts] == [True, False, False, False, False]


def test_with_all_data_nothing_is_carried():
    fit = Fit(lambda problem: Guess())
    run_task(Incremental(n_parts=3, n_samples=1, carry="data"), fit)
    assert [len(problem.train) for problem in fit.problems] == [334, 667, 1000]
    assert fit.warm_starts == [None] * 3


def test_too_many_parts_are_refused():
    with pytest.raises(ValueError, match=r"<= 10 classes of digits must hold .* n_parts=11"):
        Incremental(parts="classes", n_parts=11)
    with pytest.raises(ValueError, match=r"n_parts <= 20 training images .* n_parts=30"):
        Incremental(n_train=20, n_parts=30)
    assert Incremental(dataset="omniglot", parts="classes", n_parts=15).n_parts == 15


def test_the_classes_of_a_file_are_counted(tmp_path):
    path = str(tmp_path / "mine.npz")
    np.savez(path, inputs=np.random.default_rng(1).random((90, 6)), targets=np.arange(90) % 3)
    with pytest.raises(ValueError, match=r"n_parts <= 3 classes of .*mine\.npz must hold .*=4"):
        Incremental(dataset=path, parts="classes", n_parts=4)
    task = Incremental(dataset=path, parts="classes", n_parts=3, n_samples=1)
    assert run_task(task, Guess(3)).scores["forgetting"] == 0


def test_a_part_without_images_is_refused_before_anything_is_trained():
    fit = Fit(lambda problem: Guess())
    with pytest.raises(DataError, match=r"part 2 has none; raise n_train, or lower n_parts"):
        run_task(Incremental(**BY_CLASS, n_train=5), fit)
    assert not fit.problems


@pytest.mark.parametrize("holdout", ["validation", "test"])
def test_a_part_that_cannot_be_scored_is_refused_before_anything_is_trained(monkeypatch, holdout):
    dataset, fit = load_dataset("digits"), Fit(lambda problem: Guess())

    def without_4_and_5(split: Split) -> Split:
        kept = (split.targets != 4) & (split.targets != 5)
        return Split(split.inputs[kept], split.targets[kept])

    test = without_4_and_5(dataset.holdout("test"))
    validation = without_4_and_5(dataset.validation)
    poor = replace(dataset, validation=validation, read_test=lambda: test)
    monkeypatch.setattr(image_task, "load_dataset", lambda name: poor)
    with pytest.raises(DataError, match="part 3 has none of 4, 5; add some, or lower n_parts"):
        run_task(Incremental(**BY_CLASS), fit, holdout=holdout)
    assert not fit.problems
