"""Random labels: how they are drawn, and who learns them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from bhnbench_doubles.fits import Fit, Guess, Oracle, run_task
from scipy.stats import chi2_contingency, chisquare

from bhnbench.contract import Outcome, Split
from bhnbench.errors import DataError
from bhnbench.seeds import make_rng
from bhnbench_methods.maximum_likelihood import MaximumLikelihood
from bhnbench_methods.sparse_variational_dropout import SparseVariationalDropout
from bhnbench_tasks import image_task
from bhnbench_tasks.datasets import Dataset, load_dataset
from bhnbench_tasks.random_labels import (
    RandomLabels,
    draw_summary,
    draw_training,
    with_random_labels,
)

SMALL = RandomLabels(network="mlp", n_samples=2, early_stopping=True)


def problem_of(task):
    fit = Fit(lambda problem: Guess())
    run_task(task, fit)
    return fit.problems[0]


@pytest.mark.parametrize("split", ["train", "validation"])
def test_random_labels_are_uniform_and_know_nothing_of_the_true_ones(split):
    true, random = (getattr(d, split) for d in (load_dataset("digits"), problem_of(SMALL)))
    assert torch.equal(random.inputs, true.inputs)
    table = torch.zeros(10, 10).index_put_(
        (true.targets, random.targets), torch.ones(()), accumulate=True
    )
    assert chi2_contingency(table).pvalue > 0.01  # the seed is fixed: it holds or it does not
    assert chisquare(table.sum(0)).pvalue > 0.01


def test_on_mnist_they_are_those_of_the_paper():
    """Drawn for the training file, whose last 10 000 images are our validation images."""

    def images(n):
        return Split(torch.zeros(n, 1), torch.zeros(n, dtype=torch.int64))

    mnist = Dataset("mnist", images(50_000), images(10_000), 10, (1, 1), lambda: images(1))
    random = with_random_labels(mnist)
    np.random.seed(74632)  # noqa: NPY002 - as the paper's code does
    expected = torch.from_numpy(np.random.choice(10, 60_000))  # noqa: NPY002
    assert torch.equal(torch.cat([random.train.targets, random.validation.targets]), expected)
    assert random.train.targets.dtype == torch.int64


def test_random_labels_are_always_the_same():
    random, few = problem_of(SMALL), problem_of(replace(SMALL, n_train=50))
    assert torch.equal(few.train.targets, random.train.targets[:50])
    assert torch.equal(few.validation.targets, random.validation.targets)
    assert problem_of(SMALL).train.targets.tolist() == random.train.targets.tolist()


def test_the_data_set_itself_keeps_its_labels():
    before = load_dataset("digits").train.targets.clone()
    problem_of(SMALL)
    assert torch.equal(load_dataset("digits").train.targets, before)


def test_test_labels_stay_true():
    dataset = load_dataset("digits")
    oracle = Oracle([dataset.train, dataset.validation, dataset.holdout("test")])
    on_test = run_task(SMALL, oracle, holdout="test").scores
    on_validation = run_task(SMALL, oracle, holdout="validation").scores
    assert on_test["accuracy"] == 100
    assert on_validation["accuracy"] < 20
    assert on_test["train_accuracy"] == on_validation["train_accuracy"] < 20


@pytest.mark.parametrize("holdout", ["validation", "test"])
def test_who_knows_all_labels_by_heart(holdout):
    random = with_random_labels(load_dataset("digits"))
    scores = run_task(SMALL, Oracle([random.train]), holdout=holdout).scores
    assert scores["train_accuracy"] == 100
    assert scores["accuracy"] < 25  # of ten clusters of images, one or two are guessed by luck
    assert scores["nll"] > 20  # and it is sure of all of them
    assert scores["sparsity"] == 0


@pytest.mark.parametrize("holdout", ["validation", "test"])
def test_who_ignores_the_labels_is_best(holdout):
    scores = run_task(SMALL, Guess(), holdout=holdout).scores
    assert scores["train_accuracy"] < 15
    assert scores["nll"] == pytest.approx(np.log(10), abs=1e-5)


def test_training_accuracy_is_that_of_the_images_in_the_problem():
    random = with_random_labels(load_dataset("digits"))
    oracle = Oracle([Split(random.train.inputs[:80], random.train.targets[:80])])
    assert run_task(replace(SMALL, n_train=80), oracle).scores["train_accuracy"] == 100
    assert run_task(SMALL, oracle).scores["train_accuracy"] < 25


@pytest.mark.parametrize(("early_stopping", "n"), [(False, 0), (True, 399)])
def test_validation_images_are_for_early_stopping(early_stopping, n):
    assert len(problem_of(replace(SMALL, early_stopping=early_stopping)).validation) == n


def fitted(method):
    def answer(problem, report=None):
        return method.fit(problem, rng=make_rng(seed=1), report=lambda *_: None)

    return Fit(answer)


def test_maximum_likelihood_memorises_unless_it_stops_early():
    task = RandomLabels(n_train=200, epochs=60, n_samples=1)
    method = MaximumLikelihood(learning_rate=3e-3)
    assert run_task(task, fitted(method)).scores["train_accuracy"] > 95
    early = replace(task, early_stopping=True)
    assert run_task(early, fitted(method)).scores["train_accuracy"] < 60


def test_sparse_variational_dropout_is_left_without_weights():
    task = RandomLabels(network="mlp", n_hidden=30, epochs=50, batch_size=50, n_samples=1)
    scores = run_task(task, fitted(SparseVariationalDropout(learning_rate=0.01))).scores
    assert scores["train_accuracy"] < 15
    assert scores["sparsity"] > 99


def test_the_training_loss_is_kept_as_reported():
    class Reporting(Fit):
        def __call__(self, problem, *, report=None, warm_start=None):
            for epoch in (1, 2, 3):
                report(epoch, {"train_nll": 3.0 - epoch, "accuracy": 1.0})
            report(4, {"accuracy": 1.0})
            return super().__call__(problem, report=None)

    reports: list = []
    table = run_task(SMALL, Reporting(lambda problem: Guess()), reports=reports).tables["training"]
    assert table["epoch"].tolist() == [1, 2, 3]
    assert table["train_nll"].tolist() == [2, 1, 0]
    assert [step for step, _ in reports] == [1, 2, 3, 4]


def test_who_reports_no_training_loss_has_no_curve():
    outcome = run_task(SMALL, Guess())
    assert outcome.tables["training"]["epoch"].shape == (0,)
    assert draw_training({"a": [outcome, outcome]}).axes


def test_a_search_does_not_touch_test_rows(monkeypatch):
    def poisoned():
        raise DataError("the test split was read")

    dataset = replace(load_dataset("digits"), read_test=poisoned)
    monkeypatch.setattr(image_task, "load_dataset", lambda name: dataset)
    run_task(SMALL, Guess(), holdout="validation")
    with pytest.raises(DataError, match="was read"):
        run_task(SMALL, Guess(), holdout="test")


def test_the_figure_has_three_groups_of_bars():
    runs = [Outcome({}, {"summary": {"percent": np.array([p, 10.0, 0.0])}}) for p in (98.0, 100.0)]
    (axes,) = draw_summary({"a": runs}).axes
    assert [bar.get_height() for bar in axes.patches] == [99, 10, 0]
