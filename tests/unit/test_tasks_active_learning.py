"""Active learning with predictives whose doubts are known."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from bhnbench_doubles import fits

from bhnbench.contract import Split
from bhnbench.errors import DataError, StopRunError
from bhnbench.seeds import make_rng
from bhnbench_tasks import image_task
from bhnbench_tasks.active_learning import (
    ActiveLearning,
)
from bhnbench_tasks.datasets import load_dataset

SMALL = ActiveLearning(n_rounds=3, n_candidates=None, n_samples=8)


class MemoryCheckpoint:
    """Keeps what is saved and sets the random streams back with it, as the runner does."""

    def __init__(self) -> None:
        self.saved: tuple | None = None
        self.rngs: list[torch.Generator] = []

    def load(self):
        if self.saved is None:
            return None
        state, streams = copy.deepcopy(self.saved)
        for rng, stream in zip(self.rngs, streams, strict=True):
            rng.set_state(stream)
        return state

    def save(self, state) -> None:
        self.saved = copy.deepcopy((state, [rng.get_state() for rng in self.rngs]))


@dataclass
class Doubt:
    """Right about every image; its samples disagree about the images of one class."""

    doubtful: int = -1
    seed: int = 0

    def sample(self, inputs, n_samples, *, rng):
        dataset = load_dataset("digits")
        splits = [dataset.train, dataset.validation, dataset.holdout("test")]
        known = torch.cat([split.inputs for split in splits])
        nearest = torch.cdist(inputs, known).argmin(-1)
        targets = torch.cat([split.targets for split in splits])[nearest]
        logits = 100 * torch.nn.functional.one_hot(targets, 10).float().repeat(n_samples, 1, 1)
        logits[1::2, targets == self.doubtful, 0] = 1000
        return logits


@dataclass
class Noise:
    """Random logits, reproducible from the fit that made it."""

    weights: torch.Tensor

    def sample(self, inputs, n_samples, *, rng):
        return (inputs @ self.weights) + torch.randn(n_samples, len(inputs), 10, generator=rng)


class Fit:
    """Remembers problems and warm starts, and gives a predictive of its own making."""

    def __init__(self, predictive=None, seed: int = 0) -> None:
        self.predictive = predictive
        self.rng = make_rng(fit=seed)
        self.problems: list = []
        self.warm_starts: list = []
        self.results: list = []

    def __call__(self, problem, *, report=None, warm_start=None):
        self.problems.append(problem)
        self.warm_starts.append(warm_start)
        self.results.append(self.predictive or self._noise(warm_start))
        return self.results[-1]

    def _noise(self, warm_start):
        weights = torch.randn(64, 10, generator=self.rng)
        return Noise(weights if warm_start is None else 0.5 * (weights + warm_start.weights))


def evaluate(task, fit, *, holdout="validation", seed=1, report=None, checkpoint=None):
    rng = make_rng(seed=seed)
    checkpoint = checkpoint or MemoryCheckpoint()
    checkpoint.rngs = [rng, fit.rng]
    return task.evaluate(
        fit,
        holdout=holdout,
        rng=rng,
        report=report or (lambda step, metrics: None),
        checkpoint=checkpoint,
    )


def acquired(outcome) -> np.ndarray:
    table = outcome.tables["acquisitions"]
    return table["index"][table["round"] > 0]


@pytest.mark.parametrize("holdout", ["validation", "test"])
def test_an_oracle_is_always_right(holdout):
    outcome = evaluate(SMALL, Fit(Doubt()), holdout=holdout)
    assert outcome.scores == pytest.approx(
        {
            "area_under_curve": 100,
            "accuracy": 100,
            "nll": 0,
            "labels_to_10_error": 20,
            "labels_to_5_error": 20,
        },
        abs=1e-4,
    )
    curve = outcome.tables["learning_curve"]
    assert curve["n_labels"].tolist() == [20, 30, 40, 50]
    assert curve["accuracy"].tolist() == [100] * 4


@dataclass
class Apprentice(Doubt):
    """Right about the classes of which it has seen a telling image, and in doubt about those.

    The telling images are the last two of each class.
    """

    train: Split | None = None

    def sample(self, inputs, n_samples, *, rng):
        logits = super().sample(inputs, n_samples, rng=rng)
        pool, targets = load_dataset("digits").train.inputs, logits[0].argmax(-1)
        classes = load_dataset("digits").train.targets
        telling = torch.cat([torch.nonzero(classes == c)[-2:, 0] for c in range(10)])
        seen = torch.cdist(self.train.inputs, pool[telling]).min(0).values == 0
        known = set(classes[telling][seen].tolist())
        unknown = torch.tensor([t not in known for t in targets.tolist()])
        logits[:, unknown] = torch.roll(logits, 1, dims=-1)[:, unknown]
        doubtful = torch.cdist(inputs, pool[telling]).min(-1).values == 0
        logits[::3, doubtful] = 0  # two samples in three agree
        return logits


@pytest.mark.parametrize("acquisition", ["bald", "batch_bald"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_to_know_what_is_informative_beats_chance(acquisition, seed):
    """A planted informative image teaches a class; 2 in 100 are."""
    found = {}
    for name in (acquisition, "random"):
        fit = fits.Fit(lambda problem: Apprentice(train=problem.train))
        outcome = fits.run_task(replace(SMALL, acquisition=name), fit, seed=seed)
        found[name] = outcome.scores
    assert found[acquisition]["area_under_curve"] > found["random"]["area_under_curve"] + 20
    assert found[acquisition]["labels_to_10_error"] <= 50 < found["random"]["labels_to_10_error"]


@pytest.mark.parametrize(
    "acquisition", ["bald", "batch_bald", "max_entropy", "variation_ratio", "mean_sd"]
)
def test_the_doubtful_class_is_acquired(acquisition):
    task = replace(SMALL, acquisition=acquisition)
    outcome = evaluate(task, Fit(Doubt(doubtful=3)))
    bought = load_dataset("digits").train.targets[acquired(outcome)]
    if acquisition == "batch_bald":  # the label of one of them settles the doubt about all
        assert (bought[::10] == 3).all()
        assert (bought == 3).sum() < 10
    else:
        assert bought.tolist() == [3] * 30


def test_acquired_points_leave_the_pool():
    """All of a class is bought, then the rest: nothing twice."""
    fit = Fit(Doubt(doubtful=3))
    task = replace(SMALL, n_rounds=12)
    outcome = evaluate(task, fit)
    rows = outcome.tables["acquisitions"]["index"]
    assert len(rows) == len(set(rows.tolist())) == 20 + 12 * 10
    targets = load_dataset("digits").train.targets
    assert (targets[rows] == 3).sum() == (targets == 3).sum()


def test_a_pool_can_be_bought_empty():
    outcome = evaluate(replace(SMALL, n_rounds=2, n_acquired=490), Fit(Doubt()))
    assert sorted(outcome.tables["acquisitions"]["index"].tolist()) == list(range(1000))


def test_labels_are_kept_in_order_of_acquisition():
    fit = Fit()
    outcome = evaluate(SMALL, fit)
    rows = outcome.tables["acquisitions"]["index"]
    assert outcome.tables["acquisitions"]["round"].tolist() == 20 * [0] + 10 * [1] + 10 * [
        2
    ] + 10 * [3]
    dataset = load_dataset("digits")
    for problem, n in zip(fit.problems, (20, 30, 40, 50), strict=True):
        assert torch.equal(problem.train.inputs, dataset.train.inputs[rows[:n]])
        assert torch.equal(problem.train.targets, dataset.train.targets[rows[:n]])


@pytest.mark.parametrize("acquisition", ["bald", "batch_bald", "mean_sd"])
def test_samples_that_agree_acquire_at_random(acquisition):
    """BALD of a deterministic method is rounding noise, which must not choose."""
    bald = evaluate(replace(SMALL, acquisition=acquisition), Fit(Doubt()))
    random = evaluate(replace(SMALL, acquisition="random"), Fit(Doubt()))
    np.testing.assert_array_equal(acquired(bald), acquired(random))


def test_candidates_are_a_random_part_of_the_pool():
    doubt = Doubt(doubtful=3)
    outcome = evaluate(replace(SMALL, n_candidates=20), Fit(doubt))
    targets = load_dataset("digits").train.targets[acquired(outcome)]
    assert 0 < (targets == 3).sum() < 20  # about 2 of 20 candidates are of the class
    assert len(targets) == 30


def test_a_fit_sees_few_validation_images():
    fit = Fit()
    evaluate(SMALL, fit, holdout="test")
    validation = load_dataset("digits").validation
    assert torch.equal(fit.problems[0].validation.inputs, validation.inputs[:100])
    assert torch.equal(fit.problems[-1].validation.targets, validation.targets[:100])


@pytest.mark.parametrize(
    ("restart", "starts"),
    [
        ("warm", [None, 0, 1, 2]),
        ("fresh", [None] * 4),
        ("pretrained", [None, 0, 0, 0]),
        ("deterministic", [None] * 4),
    ],
)
def test_restart(restart, starts):
    """Each fit goes on from the result of that fit."""
    fit = Fit()
    evaluate(replace(SMALL, restart=restart), fit)
    expected = [None if start is None else fit.results[start] for start in starts]
    assert [start is other for start, other in zip(fit.warm_starts, expected, strict=True)] == [
        True
    ] * 4


def test_every_round_is_reported():
    reports: list = []
    outcome = evaluate(SMALL, Fit(), report=lambda step, metrics: reports.append((step, metrics)))
    assert [step for step, _ in reports] == [1, 2, 3, 4]
    assert [metrics["n_labels"] for _, metrics in reports] == [20, 30, 40, 50]
    first, last = reports[0][1], reports[-1][1]
    assert first["area_under_curve"] == first["accuracy"]
    assert {name: last[name] for name in outcome.scores} == outcome.scores


def test_the_start_depends_on_the_seed_alone():
    one, other_holdout, other_method, other_seed = Fit(), Fit(), Fit(Doubt(3)), Fit()
    same = evaluate(SMALL, one)
    assert evaluate(SMALL, other_holdout, holdout="test").scores != same.scores
    evaluate(SMALL, other_method)
    evaluate(SMALL, other_seed, seed=2)
    start = one.problems[0]
    for fit in (other_holdout, other_method):
        assert torch.equal(fit.problems[0].train.inputs, start.train.inputs)
        assert torch.equal(fit.problems[0].validation.inputs, start.validation.inputs)
    assert not torch.equal(other_seed.problems[0].train.inputs, start.train.inputs)


def test_the_holdout_does_not_decide_what_is_acquired():
    outcomes = [evaluate(SMALL, Fit(), holdout=holdout) for holdout in ("validation", "test")]
    np.testing.assert_array_equal(*(acquired(outcome) for outcome in outcomes))


def test_random_acquisition_is_the_same_for_all_methods():
    task = replace(SMALL, acquisition="random")
    np.testing.assert_array_equal(
        acquired(evaluate(task, Fit())), acquired(evaluate(task, Fit(Doubt(3))))
    )


@pytest.mark.parametrize(
    ("restart", "acquisition"),
    [
        ("warm", "bald"),
        ("warm", "random"),
        ("warm", "batch_bald"),
        ("fresh", "bald"),
        ("pretrained", "bald"),
        ("deterministic", "bald"),
    ],
)
@pytest.mark.parametrize("killed_in", [1, 2, 4])
def test_a_killed_run_ends_with_exactly_the_same_numbers(restart, acquisition, killed_in):
    task = replace(SMALL, restart=restart, acquisition=acquisition)
    expected = evaluate(task, Fit())
    checkpoint = MemoryCheckpoint()

    def kill(step, metrics):
        if step == killed_in:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(task, Fit(), report=kill, checkpoint=checkpoint)
    steps: list = []
    again = Fit()
    restarted = evaluate(
        task, again, report=lambda step, metrics: steps.append(step), checkpoint=checkpoint
    )
    assert steps == list(range(killed_in, 5))
    assert len(again.problems) == 5 - killed_in
    assert restarted.scores == expected.scores
    for name, table in expected.tables.items():
        for column, values in table.items():
            np.testing.assert_array_equal(restarted.tables[name][column], values)


def test_report_can_end_the_run():
    def stop(step, metrics):
        raise StopRunError

    with pytest.raises(StopRunError):
        evaluate(SMALL, Fit(), report=stop)


def test_a_search_does_not_touch_test_rows(monkeypatch):
    def poisoned():
        raise DataError("the test split was read")

    dataset = replace(load_dataset("digits"), read_test=poisoned)
    monkeypatch.setattr(image_task, "load_dataset", lambda name: dataset)
    evaluate(SMALL, Fit(), holdout="validation")
    with pytest.raises(DataError, match="was read"):
        evaluate(SMALL, Fit(), holdout="test")


def test_shared_data_are_not_modified():
    dataset = load_dataset("digits")
    splits = (dataset.train, dataset.validation, dataset.holdout("test"))
    before = [(split.inputs.clone(), split.targets.clone()) for split in splits]
    evaluate(SMALL, Fit(), holdout="test")
    for split, (inputs, targets) in zip(splits, before, strict=True):
        assert torch.equal(split.inputs, inputs)
        assert torch.equal(split.targets, targets)


def test_settings_that_do_not_fit_together_are_refused():
    with pytest.raises(ValueError, match=r"<= 1000 must hold for digits.*= 1010") as error:
        ActiveLearning(n_rounds=99, n_candidates=5)
    assert "n_candidates >= n_acquired must hold, but got n_candidates=5" in str(error.value)
    assert ActiveLearning(dataset="mnist", n_rounds=99).n_rounds == 99


def test_a_large_pool_is_taken_whole(monkeypatch):
    monkeypatch.setattr("bhnbench_tasks.active_learning.n_train_rows", lambda name: 100_000)
    with pytest.raises(ValueError, match=r"<= 100000 must hold for digits.*= 100020"):
        ActiveLearning(dataset="digits", n_rounds=10_000)
