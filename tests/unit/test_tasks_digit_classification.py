"""Digit classification with a fit that knows the answers."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
import torch
from bhnbench_doubles.fits import Fit, Guess, Oracle, run_task

from bhnbench.contract import Split
from bhnbench.errors import DataError
from bhnbench_tasks import image_task
from bhnbench_tasks.datasets import Dataset, load_dataset, mnist
from bhnbench_tasks.digit_classification import DigitClassification


@pytest.fixture
def oracle() -> Oracle:
    dataset = load_dataset("digits")
    return Oracle([dataset.train, dataset.validation, dataset.holdout("test")])


@pytest.mark.parametrize("holdout", ["validation", "test"])
def test_an_oracle_is_always_right(oracle, holdout):
    reports: list = []
    outcome = run_task(DigitClassification(), oracle, holdout=holdout, reports=reports)
    assert outcome.scores == pytest.approx(
        {"accuracy": 100, "nll": 0, "brier": 0, "ece": 0, "aurc": 0}, abs=1e-4
    )
    assert reports == [(1, {"accuracy": 50.0})]


def test_holdouts_are_told_apart():
    """Who knows all but the test images is perfect on validation only."""
    dataset = load_dataset("digits")
    partial_oracle = Oracle([dataset.train, dataset.validation])
    task = DigitClassification(n_samples=2)
    assert run_task(task, partial_oracle, holdout="validation").scores["accuracy"] == 100
    assert run_task(task, partial_oracle, holdout="test").scores["accuracy"] < 100


class Doubter:
    """Right in even rows and wrong in odd ones; ``confidence`` in its answer follows suit."""

    def __init__(self, oracle: Oracle, right: float, wrong: float) -> None:
        self.oracle, self.right, self.wrong = oracle, right, wrong

    def sample(self, inputs, n_samples, *, rng):
        answers = self.oracle.sample(inputs, n_samples, rng=rng).argmax(-1)
        is_odd = torch.arange(len(inputs)) % 2
        confidence = torch.where(is_odd.bool(), self.wrong, self.right).unsqueeze(-1)
        chosen = torch.nn.functional.one_hot((answers + is_odd) % 10, 10)
        return torch.where(chosen.bool(), confidence, (1 - confidence) / 9).log()


def test_aurc_and_the_reliability_table_of_known_confidences(oracle):
    """399 validation images, the 200 in even rows right."""
    task = DigitClassification(n_samples=3)
    outcome = run_task(task, Doubter(oracle, right=0.9, wrong=0.5))
    kept = torch.arange(1, 400)
    best = 100 * ((kept - 200).clamp(min=0) / kept).mean().item()
    assert outcome.scores["aurc"] == pytest.approx(best)
    table = outcome.tables["reliability"]
    assert {len(column) for column in table.values()} == {15}
    filled = table["n"] > 0
    assert table["n"][filled].tolist() == [199, 200]
    assert table["confidence"][filled].tolist() == pytest.approx([50, 90])
    assert table["accuracy"][filled].tolist() == [0, 100]
    gaps = table["n"] * abs(table["accuracy"] - table["confidence"])
    assert outcome.scores["ece"] == pytest.approx(gaps.sum() / 399)

    worst = run_task(task, Doubter(oracle, right=0.5, wrong=0.9)).scores["aurc"]
    undecided = run_task(task, Doubter(oracle, right=1.0, wrong=1.0)).scores["aurc"]  # exact ties
    assert best < undecided < worst
    assert undecided == pytest.approx(100 * 199 / 399)


class Saturated(Doubter):
    """Its confidences are 1 in float32; ``right`` and ``wrong`` are logits."""

    def sample(self, inputs, n_samples, *, rng):
        answers = self.oracle.sample(inputs, n_samples, rng=rng).argmax(-1)
        is_odd = torch.arange(len(inputs)) % 2
        logit = torch.where(is_odd.bool(), self.wrong, self.right).unsqueeze(-1)
        return logit * torch.nn.functional.one_hot((answers + is_odd) % 10, 10)


def test_confidences_that_are_1_in_float32_are_still_ranked(oracle):
    task, tied = DigitClassification(n_samples=1), 100 * 199 / 399
    assert run_task(task, Saturated(oracle, 60.0, 50.0)).scores["aurc"] < tied - 10
    assert run_task(task, Saturated(oracle, 50.0, 60.0)).scores["aurc"] > tied + 10


def test_a_search_does_not_touch_test_rows(oracle, monkeypatch):
    def poisoned():
        raise DataError("the test split was read")

    dataset = replace(load_dataset("digits"), read_test=poisoned)
    monkeypatch.setattr(image_task, "load_dataset", lambda name: dataset)
    run_task(DigitClassification(n_samples=2), oracle, holdout="validation")
    with pytest.raises(DataError, match="was read"):
        run_task(DigitClassification(n_samples=2), oracle, holdout="test")


def test_n_train_takes_the_first_rows(oracle):
    fit = Fit(lambda problem: oracle)
    run_task(DigitClassification(n_train=70, n_samples=1), fit)
    run_task(DigitClassification(n_samples=1), fit, holdout="test")
    some, every = fit.problems
    assert len(some.train) == 70
    assert len(every.train) == 1000
    assert torch.equal(some.train.inputs, every.train.inputs[:70])
    assert torch.equal(some.validation.inputs, load_dataset("digits").validation.inputs)


def test_the_network_follows_the_settings():
    network = network_of(DigitClassification(n_hidden=30, n_layers=3))
    sizes = [tuple(p.shape) for p in network.parameters() if p.ndim == 2]
    assert sizes == [(30, 64), (30, 30), (30, 30), (10, 30)]


def network_of(task):
    fit = Fit(lambda problem: Guess())
    run_task(task, fit)
    (problem,) = fit.problems
    network = pickle.loads(pickle.dumps(problem.network))()
    assert network(problem.train.inputs[:3]).shape == (3, 10)
    return network


def test_lenet_300_100_has_these_hidden_layers():
    network = network_of(DigitClassification(network="lenet_300_100"))
    sizes = [tuple(p.shape) for p in network.parameters() if p.ndim == 2]
    assert sizes == [(300, 64), (100, 300), (10, 100)]


@pytest.mark.parametrize(
    ("network", "n_weights"),
    [
        ("lenet_300_100", 266_200),
        ("lenet_5", 430_500),
        ("cnn_32", 32 * (1 + 2 * 32) * 16 + 32 * 81 * 128 + 1280),
    ],
)
def test_the_papers_networks_have_the_papers_sizes(network, n_weights, monkeypatch):
    """On images of MNIST's size; the numbers of weights are those of Molchanov et al. (2017)."""
    images = Split(torch.rand(10, 784), torch.arange(10))
    dataset = Dataset("mnist", images, images, 10, (28, 28), read_test=lambda: images)
    monkeypatch.setattr(image_task, "load_dataset", lambda name: dataset)
    network = network_of(DigitClassification(dataset="mnist", network=network))
    assert sum(p.numel() for p in network.parameters() if p.ndim > 1) == n_weights


def test_lenet_5_is_refused_where_images_are_too_small():
    with pytest.raises(
        ValueError, match="lenet_5 needs images of 28x28 pixels, but digits has 8x8"
    ):
        DigitClassification(network="lenet_5")


def test_all_mistakes_are_told_at_once():
    with pytest.raises(ValueError, match=r"n_train <= 1000 must hold.*; network: lenet_5 needs"):
        DigitClassification(n_train=5000, network="lenet_5")


def test_more_training_images_than_there_are_is_refused():
    with pytest.raises(ValueError, match=r"n_train <= 1000 must hold for digits.*n_train=5000"):
        DigitClassification(n_train=5000)
    assert DigitClassification(dataset="mnist", n_train=5000).n_train == 5000


def test_the_digest_follows_the_data_set():
    assert DigitClassification(dataset="mnist").data_digest == mnist.DIGEST
    assert DigitClassification().data_digest != mnist.DIGEST
