"""Digit classification with a fit that knows the answers."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
import torch

from bhnbench.errors import DataError
from bhnbench.seeds import make_rng
from bhnbench_tasks import digit_classification
from bhnbench_tasks.datasets import load_dataset, mnist
from bhnbench_tasks.digit_classification import DigitClassification


class NoCheckpoint:
    def load(self) -> None:
        return None

    def save(self, state: object) -> None: ...


class Oracle:
    """The class of the nearest known image, with all confidence."""

    def __init__(self, splits) -> None:
        self.inputs = torch.cat([split.inputs for split in splits])
        self.targets = torch.cat([split.targets for split in splits])

    def sample(self, inputs, n_samples, *, rng):
        nearest = torch.cdist(inputs, self.inputs).argmin(-1)
        logits = 100 * torch.nn.functional.one_hot(self.targets[nearest], 10).float()
        return logits.expand(n_samples, -1, -1)


@pytest.fixture
def oracle() -> Oracle:
    dataset = load_dataset("digits")
    return Oracle([dataset.train, dataset.validation, dataset.holdout("test")])


def evaluate(task, predictive, *, holdout="validation", reports=None, problems=None):
    def fit(problem, *, report=None, warm_start=None):
        if problems is not None:
            problems.append(problem)
        report(1, {"accuracy": 50.0})
        return predictive

    return task.evaluate(
        fit,
        holdout=holdout,
        rng=make_rng(seed=1),
        report=lambda step, metrics: None if reports is None else reports.append((step, metrics)),
        checkpoint=NoCheckpoint(),
    )


@pytest.mark.parametrize("holdout", ["validation", "test"])
def test_an_oracle_is_always_right(oracle, holdout):
    reports: list = []
    outcome = evaluate(DigitClassification(), oracle, holdout=holdout, reports=reports)
    assert outcome.scores == pytest.approx(
        {"accuracy": 100, "nll": 0, "brier": 0, "ece": 0}, abs=1e-4
    )
    assert reports == [(1, {"accuracy": 50.0})]


def test_holdouts_are_told_apart():
    """Who knows all but the test images is perfect on validation only."""
    dataset = load_dataset("digits")
    partial_oracle = Oracle([dataset.train, dataset.validation])
    task = DigitClassification(n_samples=2)
    assert evaluate(task, partial_oracle, holdout="validation").scores["accuracy"] == 100
    assert evaluate(task, partial_oracle, holdout="test").scores["accuracy"] < 100


def test_a_search_does_not_touch_test_rows(oracle, monkeypatch):
    def poisoned():
        raise DataError("the test split was read")

    dataset = replace(load_dataset("digits"), read_test=poisoned)
    monkeypatch.setattr(digit_classification, "load_dataset", lambda name: dataset)
    evaluate(DigitClassification(n_samples=2), oracle, holdout="validation")
    with pytest.raises(DataError, match="was read"):
        evaluate(DigitClassification(n_samples=2), oracle, holdout="test")


def test_n_train_takes_the_first_rows(oracle):
    problems: list = []
    evaluate(DigitClassification(n_train=70, n_samples=1), oracle, problems=problems)
    evaluate(DigitClassification(n_samples=1), oracle, holdout="test", problems=problems)
    some, every = problems
    assert len(some.train) == 70
    assert len(every.train) == 1000
    assert torch.equal(some.train.inputs, every.train.inputs[:70])
    assert torch.equal(some.validation.inputs, load_dataset("digits").validation.inputs)


def test_the_network_follows_the_settings(oracle):
    problems: list = []
    evaluate(DigitClassification(n_hidden=30, n_layers=3, n_samples=1), oracle, problems=problems)
    (problem,) = problems
    network = pickle.loads(pickle.dumps(problem.network))()
    sizes = [tuple(p.shape) for p in network.parameters() if p.ndim == 2]
    assert sizes == [(30, 64), (30, 30), (30, 30), (10, 30)]
    assert network(problem.train.inputs).shape == (1000, 10)


def test_more_training_images_than_there_are_is_refused():
    with pytest.raises(ValueError, match=r"n_train <= 1000 must hold for digits.*n_train=5000"):
        DigitClassification(n_train=5000)
    assert DigitClassification(dataset="mnist", n_train=5000).n_train == 5000


def test_the_digest_follows_the_data_set():
    assert DigitClassification(dataset="mnist").data_digest == mnist.DIGEST
    assert DigitClassification().data_digest != mnist.DIGEST
