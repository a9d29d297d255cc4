"""Compression with networks whose zeros are known."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from bhnbench_doubles.fits import Fit, Guess, Oracle, run_task

from bhnbench.contract import Outcome, Prunable
from bhnbench.errors import DataError
from bhnbench.seeds import make_rng
from bhnbench_methods.sparse_variational_dropout import SparseVariationalDropout
from bhnbench_tasks import image_task
from bhnbench_tasks.compression import (
    Compression,
    count_weights,
    draw_errors,
    draw_sparsity,
    error_of,
)
from bhnbench_tasks.datasets import load_dataset
from bhnbench_tasks.networks import lenet_5
from bhnbench_tasks.plain_network import train_plain_network, trained_once

SMALL = Compression(network="mlp", n_hidden=30, epochs=10, n_samples=2)
N_WEIGHTS = 64 * 30 + 30 * 30 + 30 * 10


@dataclass
class Known:
    """A predictive with this pruned network."""

    network: torch.nn.Module

    def sample(self, inputs, n_samples, *, rng):
        return self.network(inputs).expand(n_samples, -1, -1)

    def sparsity(self):
        return {"of a": 0.5}

    def pruned(self):
        return copy.deepcopy(self.network)


@pytest.fixture(scope="module")
def trained():
    """A network like the task's own."""
    return train_plain_network(SMALL.problem(load_dataset("digits")), make_rng(seed=5))


def without(network, share):
    """The network without that share of its weights, the smallest of each layer."""
    pruned = copy.deepcopy(network)
    for weight in (p for p in pruned.parameters() if p.ndim > 1):
        n = round(share * weight.numel())
        weight.view(-1)[weight.abs().flatten().argsort()[:n]] = 0
    return pruned


def tolerant(points):
    return replace(SMALL, tolerance=points)


def test_who_cannot_be_pruned_has_all_its_weights():
    dataset = load_dataset("digits")
    oracle = Oracle([dataset.train, dataset.validation, dataset.holdout("test")])
    assert not isinstance(oracle, Prunable)
    for holdout in ("validation", "test"):
        outcome = run_task(SMALL, oracle, holdout=holdout)
        assert outcome.scores == {"compression": 1, "error": 0, "sparsity": 0, "accuracy": 100}
        assert outcome.tables["layers"]["n_weights"].tolist() == [1920, 900, 300]
        assert outcome.tables["layers"]["n_left"].tolist() == [1920, 900, 300]


def test_zeros_are_counted_layer_by_layer(trained):
    outcome = run_task(tolerant(100.0), Known(without(trained, 0.2)))
    assert outcome.scores["compression"] == pytest.approx(1 / 0.8)
    assert outcome.scores["sparsity"] == pytest.approx(20)
    layers = outcome.tables["layers"]
    assert layers["n_left"].tolist() == [1536, 720, 240]
    np.testing.assert_allclose(layers["sparsity"], 20)
    assert layers["layer"].tolist() == [1, 2, 3]


def test_a_layer_that_is_gone(trained):
    pruned = copy.deepcopy(trained)
    pruned[2].weight.zero_()
    outcome = run_task(tolerant(100.0), Known(pruned))
    np.testing.assert_allclose(outcome.tables["layers"]["sparsity"], [0, 100, 0])
    assert outcome.scores["compression"] == pytest.approx(N_WEIGHTS / (N_WEIGHTS - 900))


def test_an_empty_network_is_no_compression(trained):
    """It is compressed as many times as there are weights, to be wrong nine times in ten."""
    empty = without(trained, 1.0)
    scores = run_task(SMALL, Known(empty)).scores
    assert scores["compression"] == 1
    assert scores["sparsity"] == 100
    assert 85 < scores["error"] < 95
    assert run_task(tolerant(100.0), Known(empty)).scores["compression"] == N_WEIGHTS


def test_compression_counts_up_to_the_tolerance(trained):
    pruned = Known(without(trained, 0.8))
    dense, error, _ = run_task(SMALL, pruned).tables["errors"]["error"].tolist()
    assert error > dense + 1  # or there is nothing to tolerate
    outcomes = [run_task(tolerant(error - dense + more), pruned).scores for more in (0.0, -0.01)]
    assert [scores["compression"] for scores in outcomes] == pytest.approx([5, 1], rel=1e-3)
    assert outcomes[0]["error"] == outcomes[1]["error"] == error


def test_to_be_better_than_the_dense_network_is_allowed(trained):
    task = replace(SMALL, epochs=1, tolerance=0.0)
    assert run_task(task, Known(without(trained, 0.1))).scores["compression"] > 1.1


def test_error_is_the_pruned_networks_and_accuracy_the_predictives(trained):
    dataset = load_dataset("digits")
    oracle = Oracle([dataset.validation])
    both = Known(trained)
    both.sample = oracle.sample
    scores = run_task(SMALL, both).scores
    assert scores["accuracy"] == 100
    assert scores["error"] == error_of(trained, dataset.validation) > 0


def test_the_dense_network_depends_on_the_seed_alone(trained):
    found = [
        run_task(SMALL, answer, seed=seed).tables["errors"]["error"][0]
        for answer, seed in ((Guess(), 1), (Known(trained), 1), (Guess(), 2))
    ]
    assert found[0] == found[1]
    first, other = (trained_once(SMALL, "", seed) for seed in (1, 2))
    assert not torch.equal(first[0].weight, other[0].weight)
    trained_once.cache_clear()
    again = trained_once(SMALL, "", 1)
    assert again is not first
    assert torch.equal(again[0].weight, first[0].weight)


def test_the_dense_network_is_trained():
    assert error_of(trained_once(SMALL, "", 1), load_dataset("digits").validation) < 20


def test_the_error_of_a_network_is_counted():
    split = load_dataset("digits").validation
    assert error_of(lambda inputs: torch.eye(10)[torch.zeros(len(inputs)).long()], split) == (
        pytest.approx(100 * (split.targets != 0).double().mean().item())
    )


def test_weights_of_the_papers_convolutional_network():
    network = lenet_5(10)
    for parameter in network.parameters():
        torch.nn.init.ones_(parameter)  # one of 430 500 random ones is 0 now and then
    layers = count_weights(network, network)
    assert layers["n_weights"].tolist() == [500, 25_000, 400_000, 5000]
    assert layers["sparsity"].tolist() == [0] * 4


def test_sparse_variational_dropout_is_compressed():
    task = replace(SMALL, epochs=40, batch_size=50, tolerance=10.0)
    method = SparseVariationalDropout(learning_rate=0.01)
    fit = Fit(lambda problem: method.fit(problem, rng=make_rng(), report=lambda *_: None))
    outcome = run_task(task, fit, holdout="test")
    assert outcome.scores["compression"] > 3
    assert outcome.scores["error"] < 12
    assert outcome.scores["accuracy"] == pytest.approx(100 - outcome.scores["error"])
    compressed = outcome.scores["compression"]
    assert compressed == pytest.approx(100 / (100 - outcome.scores["sparsity"]))


def test_a_search_does_not_touch_test_rows(monkeypatch):
    def poisoned():
        raise DataError("the test split was read")

    dataset = replace(load_dataset("digits"), read_test=poisoned)
    monkeypatch.setattr(image_task, "load_dataset", lambda name: dataset)
    run_task(SMALL, Guess(), holdout="validation")
    with pytest.raises(DataError, match="was read"):
        run_task(SMALL, Guess(), holdout="test")


@pytest.mark.parametrize("tolerance", [-0.1, 101])
def test_a_tolerance_is_a_percentage(tolerance):
    with pytest.raises(ValueError, match=r"tolerance: must be in \[0, 100\]"):
        Compression(tolerance=tolerance)


def outcome(sparsities, compression):
    layers = {"sparsity": np.array(sparsities)}
    return Outcome(
        {"compression": compression},
        {"layers": layers, "errors": {"error": np.array([2.0, 3.0, 3.0])}},
    )


def test_the_figure_has_a_bar_a_layer_and_method():
    runs = {"a": [outcome([99.0, 97, 60], 60), outcome([97.0, 95, 62], 70)], "none": []}
    figure = draw_sparsity({**runs, "b": [outcome([0.0, 0, 0], 1)]})
    (axes,) = figure.axes
    assert [bar.get_height() for bar in axes.patches] == [98, 96, 61, 0, 0, 0]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a (65x)", "b (1x)"]
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        "layer 1", "layer 2", "layer 3",
    ]  # fmt: skip


def test_the_figure_of_errors_has_the_dense_network_beside():
    (axes,) = draw_errors({"a": [outcome([0.0], 1)]}).axes
    assert [bar.get_height() for bar in axes.patches] == [2, 3, 3]


def test_figures_without_runs():
    assert draw_sparsity({"a": []}).axes
