"""Anomaly detection with detectors whose answers are known."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from bhnbench_doubles.fits import Fit, Guess, run_task

from bhnbench.contract import Split
from bhnbench.errors import DataError
from bhnbench_tasks import image_task
from bhnbench_tasks.anomaly_detection import AnomalyDetection, outlier_scores
from bhnbench_tasks.datasets import load_dataset
from bhnbench_tasks.datasets.outliers import outliers_digest
from bhnbench_tasks.scores import SCORES

N_CLASSES = 9
TASK = AnomalyDetection(n_samples=4)
NOISE = AnomalyDetection(outliers="gaussian", validation_outliers="uniform", n_samples=4)


def all_digits() -> Split:
    dataset = load_dataset("digits")
    splits = [dataset.train, dataset.validation, dataset.holdout("test")]
    return Split(
        torch.cat([split.inputs for split in splits]),
        torch.cat([split.targets for split in splits]),
    )


class Known:
    """Right and sure about digits but for one class; of all else it does what it is told.

    ``unknown(logits)`` is given logits ``(n_samples, n, n_classes)`` of 0 to change.
    """

    def __init__(
        self,
        unknown: Callable[[torch.Tensor], object] = lambda logits: None,
        noise: Callable[[torch.Tensor], object] | None = None,
        left_out: int | None = 3,
        known_to_be_sure: bool = True,
    ) -> None:
        digits = all_digits()
        kept = digits.targets != (-1 if left_out is None else left_out)
        self.digits = Split(digits.inputs[kept], digits.targets[kept])
        self.left_out = 99 if left_out is None else left_out
        self.unknown, self.noise = unknown, noise or unknown
        self.sure = 100.0 if known_to_be_sure else 0.0
        self.n_classes = 10 if left_out is None else N_CLASSES
        self.sampled: list[torch.Tensor] = []

    def sample(self, inputs, n_samples, *, rng):
        self.sampled.append(inputs)
        distance, nearest = torch.cdist(inputs, self.digits.inputs).min(-1)
        targets = self.digits.targets[nearest]
        targets = targets - (targets > self.left_out).long()
        logits = torch.zeros(n_samples, len(inputs), self.n_classes)
        is_known = distance < 1e-3
        is_noise = ((inputs * 16) % 1 > 0).any(-1)
        sure = self.sure * torch.nn.functional.one_hot(targets, self.n_classes)
        logits[:, is_known] = sure[is_known].float()
        for chosen, change in (
            (~is_known & ~is_noise, self.unknown),
            (~is_known & is_noise, self.noise),
        ):
            part = logits[:, chosen]
            change(part)
            logits[:, chosen] = part
        return logits


def disagree(logits: torch.Tensor) -> None:
    """Half of the samples are sure of one class, half of another: doubt of every kind."""
    logits[::2, :, 0] = logits[1::2, :, 1] = 100


class Random:
    """Logits that know nothing of the image."""

    def sample(self, inputs, n_samples, *, rng):
        return torch.randn(n_samples, len(inputs), N_CLASSES, generator=rng)


@pytest.mark.parametrize("holdout", ["validation", "test"])
@pytest.mark.parametrize("source", ["unseen_class", "gaussian"])
def test_a_perfect_detector_has_all(source, holdout):
    left_out = 3 if source == "unseen_class" else None
    outcome = run_task(replace(TASK, outliers=source), Known(left_out=left_out), holdout=holdout)
    scores = dict(outcome.scores)
    base_rate = scores.pop("base_rate")
    assert scores == pytest.approx(
        {"auroc": 100, "aupr_in": 100, "aupr_out": 100, "fpr95": 0, "accuracy": 100}
    )
    assert 0 < base_rate <= 50


def test_the_opposite_has_nothing():
    """Sure of the outliers, in doubt about all else."""

    def sure(logits):
        logits[:, :, 0] = 100

    task = replace(TASK, score="entropy")
    outcome = run_task(task, Known(sure, known_to_be_sure=False), holdout="test")
    assert outcome.scores["auroc"] == 0
    assert outcome.scores["fpr95"] == 100


def test_a_random_detector_is_at_chance():
    """Within four standard errors of the Mann-Whitney statistic of unrelated scores."""
    outcome = run_task(replace(NOISE, score="entropy"), Random(), holdout="test")
    n = 398
    standard_error = 100 * math.sqrt((2 * n + 1) / (12 * n * n))
    assert outcome.scores["base_rate"] == 50
    assert outcome.scores["auroc"] == pytest.approx(50, abs=4 * standard_error)
    assert outcome.scores["fpr95"] == pytest.approx(95, abs=6)
    np.testing.assert_allclose(
        outcome.tables["roc"]["tpr"], outcome.tables["roc"]["fpr"], atol=400 * 0.5 / math.sqrt(n)
    )


def test_a_method_without_doubts_is_at_chance_in_every_score():
    outcome = run_task(TASK, Guess(N_CLASSES), holdout="test")
    assert outcome.tables["scores"]["auroc"].tolist() == [50.0] * 4


@pytest.mark.parametrize("score", SCORES)
def test_every_score_is_high_where_samples_disagree(score):
    outcome = run_task(replace(TASK, score=score), Known(disagree), holdout="test")
    assert outcome.scores["auroc"] == 100


def test_one_planted_outlier_comes_first():
    score, is_outlier = torch.tensor([0.1, 0.9, 0.2, 0.3]), torch.tensor([0, 1, 0, 0]).bool()
    assert outlier_scores(score, is_outlier) == pytest.approx(
        {"auroc": 100, "aupr_in": 100, "aupr_out": 100, "fpr95": 0, "base_rate": 25}
    )
    assert outlier_scores(-score, is_outlier) == pytest.approx(
        # Ordinary images are found at ranks 2, 3 and 4, the outlier at rank 4.
        {
            "auroc": 0,
            "aupr_in": 100 * (1 / 2 + 2 / 3 + 3 / 4) / 3,
            "aupr_out": 25,
            "fpr95": 100,
            "base_rate": 25,
        }
    )


def test_the_score_is_chosen_on_validation_alone():
    """Samples disagree about noise, agree to be in doubt about the unseen class."""

    def agree(logits):
        logits[:, :, :2] = 100

    def disagree_less(logits):
        """As much doubt in the mean as in images that are known, but only in the mean."""
        logits[::2, :, 0] = logits[1::2, :, 1] = 2

    for holdout, auroc in (("validation", 100.0), ("test", 50.0)):
        detector = Known(agree, noise=disagree_less)
        detector.sure = 0.0  # uniform probabilities: more entropy than anything else
        outcome = run_task(TASK, detector, holdout=holdout)
        table = outcome.tables["scores"]
        assert list(SCORES)[int(table["chosen"].argmax())] == "bald"
        assert table["chosen"].sum() == 1
        assert outcome.scores["auroc"] == auroc
    named = run_task(replace(TASK, score="entropy"), detector, holdout="test")
    assert named.scores["auroc"] == 0
    assert named.tables["scores"]["chosen"].tolist() == [1, 0, 0, 0]


def test_the_unseen_class_is_gone_and_the_others_are_numbered_anew():
    fit = Fit(lambda problem: Known(left_out=5))
    outcome = run_task(replace(TASK, left_out=5, n_train=400), fit, holdout="test")
    (problem,) = fit.problems
    dataset = load_dataset("digits")
    for split, whole in (
        (problem.train, Split(dataset.train.inputs[:400], dataset.train.targets[:400])),
        (problem.validation, dataset.validation),
    ):
        kept = whole.targets != 5
        assert torch.equal(split.inputs, whole.inputs[kept])
        renumbered = [c - (c > 5) for c in whole.targets[kept].tolist()]
        assert split.targets.tolist() == renumbered
    assert problem.network()(problem.train.inputs[:2]).shape == (2, N_CLASSES)
    assert outcome.scores["accuracy"] == 100


def test_the_outliers_are_the_unseen_images_of_the_test_split():
    detector = Known()
    run_task(TASK, detector, holdout="test")
    split = load_dataset("digits").holdout("test")
    expected = [split.inputs[split.targets != 3], split.inputs[split.targets == 3]]
    assert torch.equal(detector.sampled[-1], torch.cat(expected))


def test_a_search_never_meets_the_unseen_class():
    detector, dataset = Known(), load_dataset("digits")
    run_task(TASK, detector)
    for split in (dataset.train, dataset.validation, dataset.holdout("test")):
        unseen = split.inputs[split.targets == 3]
        for sampled in detector.sampled:
            assert torch.cdist(sampled, unseen).min() > 1e-3


def test_noise_is_as_much_as_there_are_images_and_fresh_for_each_holdout():
    detector = Known(left_out=None)
    run_task(NOISE, detector, holdout="test", seed=1)
    run_task(NOISE, detector, holdout="test", seed=2)
    validation, test, other_validation, _ = detector.sampled
    assert [len(validation), len(test)] == [2 * 399, 2 * 398]
    assert not torch.equal(validation[399:], other_validation[399:])
    assert torch.equal(validation[:399], other_validation[:399])
    assert test[398:].min() < 0  # Gaussian
    assert validation[399:].min() >= 0  # uniform


def test_an_evaluation_chooses_by_what_the_search_was_scored_on():
    detector = Known()
    run_task(TASK, detector, holdout="validation")
    run_task(TASK, detector, holdout="test")
    search, choice, scored = detector.sampled
    assert torch.equal(search, choice)
    assert not set(map(tuple, scored.tolist())) & set(map(tuple, search.tolist()))


def test_a_search_does_not_touch_test_rows(monkeypatch):
    def poisoned():
        raise DataError("the test split was read")

    dataset, detector = replace(load_dataset("digits"), read_test=poisoned), Known()
    monkeypatch.setattr(image_task, "load_dataset", lambda name: dataset)
    run_task(TASK, detector, holdout="validation")
    with pytest.raises(DataError, match="was read"):
        run_task(TASK, detector, holdout="test")


def test_the_histogram_counts_every_image_once():
    table = run_task(TASK, Known(), holdout="test").tables["histogram"]
    assert {len(column) for column in table.values()} == {40}
    for name in SCORES:
        for group in ("positive", "other"):
            assert table[f"{name}_{group}"].sum() == pytest.approx(100)
    assert table["entropy_positive"][-1] == 100
    assert table["entropy_other"][0] == 100


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"outliers": "uniform"},
            "outliers and validation_outliers must have no kind of image in common, but uniform "
            "and uniform both hold uniform noise; take another set for one of them",
        ),
        (
            {"outliers": "notmnist", "validation_outliers": "omniglot"},
            "outliers and validation_outliers .* notmnist and omniglot both hold Latin letters",
        ),
        (
            {"dataset": "mnist", "outliers": "mnist"},
            "dataset and outliers .* mnist and mnist both hold handwritten digits",
        ),
        (
            {"dataset": "digits", "outliers": "mnist"},
            "dataset and outliers .* digits and mnist both hold handwritten digits",
        ),
        (
            {"dataset": "notmnist", "validation_outliers": "notmnist"},
            "dataset and validation_outliers .* notmnist and notmnist both hold Latin letters",
        ),
        (
            {"dataset": "omniglot", "validation_outliers": "kmnist"},
            "dataset and validation_outliers .* omniglot and kmnist both hold hiragana",
        ),
    ],
)
def test_outliers_that_are_none_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        AnomalyDetection(**settings)


def test_a_class_that_is_not_there_cannot_be_left_out():
    with pytest.raises(ValueError, match=r"left_out must be .* digits has 10,.* left_out=10"):
        replace(TASK, left_out=10)
    assert AnomalyDetection(dataset="omniglot", left_out=14).left_out == 14
    assert run_task(replace(NOISE, left_out=10), Guess()).scores["auroc"] == 50


def test_of_two_classes_none_can_be_left_out(tmp_path):
    path = save_colours(tmp_path / "colours.npz", n_classes=2)
    with pytest.raises(ValueError, match=r"three classes or more, but .*colours\.npz has 2, "):
        AnomalyDetection(dataset=path, left_out=1)
    assert AnomalyDetection(dataset=path, outliers="gaussian").left_out == 3


def test_there_must_be_other_classes_to_train_on():
    train, fit = load_dataset("digits").train, Fit(lambda problem: Guess(N_CLASSES))
    first = int(train.targets[0])
    with pytest.raises(DataError, match=rf"not of class {first}, but with n_train=1 all are; rai"):
        run_task(replace(TASK, left_out=first, n_train=1), fit)
    assert not fit.problems


@pytest.mark.parametrize(("missing", "counts"), [(3, r"\d+ and 0"), (None, r"0 and \d+")])
def test_images_to_tell_apart_are_there_before_anything_is_trained(monkeypatch, missing, counts):
    """The test split has none of the unseen class, or nothing else."""
    dataset, fit = load_dataset("digits"), Fit(lambda problem: Guess(N_CLASSES))
    test = dataset.holdout("test")
    kept = test.targets == 3 if missing is None else test.targets != missing
    test = Split(test.inputs[kept], test.targets[kept])
    poor = replace(dataset, read_test=lambda: test)
    monkeypatch.setattr(image_task, "load_dataset", lambda name: poor)
    with pytest.raises(DataError, match=rf"digits: .* with left_out=3 there are {counts}; leave"):
        run_task(TASK, fit, holdout="test")
    assert not fit.problems


def test_the_digest_follows_the_outliers():
    plain = NOISE.data_digest
    assert plain == TASK.data_digest
    letters = outliers_digest("notmnist")
    assert AnomalyDetection(outliers="notmnist").data_digest == f"{plain}+{letters}"
    assert replace(TASK, validation_outliers="notmnist").data_digest == f"{plain}+{letters}"


def save_colours(path, n_classes: int = 3, dtype: type = np.uint8) -> str:
    inputs = np.random.default_rng(1).integers(0, 256, (90, 3, 4, 5)).astype(dtype)
    np.savez(path, inputs=inputs, targets=np.arange(len(inputs)) % n_classes)
    return str(path)


def test_outliers_of_another_scale_are_refused(tmp_path):
    path = save_colours(tmp_path / "colours.npz", dtype=np.float32)
    with pytest.raises(ValueError, match=r"must hold pixels in \[0, 1\], but .* in \[0, 255\]"):
        replace(NOISE, dataset=path)


def test_colour_images_meet_noise_of_their_shape(tmp_path):
    path = save_colours(tmp_path / "colours.npz")
    task = replace(NOISE, dataset=path)
    outcome = run_task(task, Guess(3), holdout="test")
    assert outcome.scores["auroc"] == 50
    left_out = run_task(replace(task, outliers="unseen_class", left_out=2), Guess(2))
    assert 0 < left_out.scores["base_rate"] <= 50


def test_letters_are_no_digits(data_folder, tmp_path):
    """Both halves of notMNIST, at the images' size and, among colours, with equal channels."""
    task = replace(TASK, outliers="notmnist")
    detector = Known(left_out=None)
    outcome = run_task(task, detector, holdout="test")
    assert outcome.scores["auroc"] == 100
    assert detector.sampled[-1].shape == (2 * 398, 64)
    task = replace(TASK, outliers="uniform", validation_outliers="notmnist")
    assert run_task(task, detector).scores["auroc"] == 100
    searched, scored = detector.sampled[-1][399:], detector.sampled[-2][398:]
    assert not torch.equal(searched[:398], scored)
    path = save_colours(tmp_path / "colours.npz")
    colours = replace(TASK, dataset=path, outliers="notmnist")
    assert run_task(colours, Guess(3), holdout="test").scores["auroc"] == 50
