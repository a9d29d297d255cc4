"""Anomaly detection: does the uncertainty tell images of no known class?"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from bhnbench.contract import (
    Checkpoint,
    Draw,
    Fit,
    Holdout,
    Metric,
    Outcome,
    Predictive,
    Report,
    Split,
)
from bhnbench.detection import AUPR_IN, AUPR_OUT, AUROC, FPR95, aupr, auroc, fpr_at_tpr
from bhnbench.errors import DataError
from bhnbench.metrics import ACCURACY, accuracy, mixture_log_probs
from bhnbench.space import Choice, Int, setting
from bhnbench_tasks.corruptions import not_pixels
from bhnbench_tasks.datasets import Dataset, n_classes
from bhnbench_tasks.datasets.outliers import (
    NOISE,
    OUTLIERS,
    common_kinds,
    load_outliers,
    outliers_digest,
    prepare_outliers,
)
from bhnbench_tasks.detectors import AUTO, SCORE_NAMES, Ranked, chosen_score, tables
from bhnbench_tasks.figures.histograms import DrawHistograms
from bhnbench_tasks.figures.roc import draw_roc
from bhnbench_tasks.image_task import ImageTask, first
from bhnbench_tasks.scores import sample_outputs, uncertainty_scores
from bhnbench_tasks.streams import spawn

UNSEEN_CLASS = "unseen_class"
_SETS = ("dataset", "outliers", "validation_outliers")  # settings that name images
BASE_RATE = Metric(
    "base_rate", "minimize", "%", "share of outliers: what a random detector has as aupr_out"
)


@dataclass(frozen=True, kw_only=True)
class AnomalyDetection(ImageTask):
    """Find images that belong to none of the classes the network was trained on.

    The protocols of Krueger et al. (2017), "Bayesian hypernetworks", from their code, and of
    Hendrycks and Gimpel (2017), "A baseline for detecting misclassified and out-of-distribution
    examples in neural networks": a classifier is trained as ever, images of the holdout split and
    outliers are ranked by an uncertainty score, and the outliers (the positives) should come
    first. ``fpr95`` is the share of ordinary images that are flagged where 95 % of the outliers
    are. ``aupr_out`` depends on how many outliers there are: a random detector has ``base_rate``,
    and 100 less that as ``aupr_in``. ``accuracy`` is that on the ordinary images.

    ``outliers: unseen_class`` leaves the class ``left_out`` out of training, validation and test
    data, numbers the others anew, and takes its images of the test split for outliers. Other
    outliers are another data set or noise (``uniform`` on [0, 1], ``gaussian`` of sd 1).

    **Nothing tuned has seen the outliers it is scored on.** A search is scored on
    ``validation_outliers``, an evaluation on ``outliers``, and the two must share no kind of image
    with each other, nor with the data set: letters are no outliers to letters. Uniform and
    Gaussian noise count as two kinds, so before an evaluation on noise a search may have seen
    noise. The score is fixed in the same way: ``score: auto`` takes, of the four in
    ``bhnbench_tasks.scores``, the one with the highest AUROC of validation images against
    validation outliers, in search and in evaluation alike; it is never the best of four on test
    data. The table ``scores`` has all of them. A search on noise says little about outliers of
    another kind: on digits, over 65 random configurations of five methods, its AUROC and that
    against an unseen class have a rank correlation of 0.1. To compare methods with their defaults
    is as honest.

    Departures: the published outliers of an unseen class are its *training* images; here they are
    those of the test split, which no search can have met, and fewer. There are no more outliers
    than ordinary images, and half of another data set is kept for validation; so base rates are
    50 % or lower, where papers have 50 %. Hendrycks and Gimpel rank correctly classified images
    only, here it is all of them: a method may not choose what it is scored on. The network is
    smaller.
    """

    outliers: str = setting(
        UNSEEN_CLASS,
        "what an evaluation is scored on",
        valid=Choice(UNSEEN_CLASS, *OUTLIERS.values),
    )
    left_out: int = setting(3, "the unseen class", valid=Int(0, 10_000))
    validation_outliers: str = setting(
        "uniform", "what a search is scored on and the score is chosen by", valid=OUTLIERS
    )
    score: str = setting(
        AUTO, "what images are ranked by; auto: the best on validation", valid=SCORE_NAMES
    )

    metrics: ClassVar[tuple[Metric, ...]] = (
        AUROC,
        AUPR_IN,
        AUPR_OUT,
        FPR95,
        ACCURACY,
        BASE_RATE,
    )
    figures: ClassVar[Mapping[str, Draw]] = {
        "roc": draw_roc,
        "score_histograms": DrawHistograms("outliers", "ordinary images"),
    }

    def mistakes(self) -> list[str]:
        """Outliers that were tuned on, or that are no outliers; a class that is not there."""
        mistakes = super().mistakes() + not_pixels(self.dataset) + self._images_in_common()
        known = n_classes(self.dataset)
        if self.outliers == UNSEEN_CLASS and not self.left_out < known > 2:
            mistakes.append(
                f"left_out must be one of three classes or more, but {self.dataset} has {known}, "
                f"numbered from 0, and left_out={self.left_out}; name one, or other outliers"
            )
        return mistakes

    def _images_in_common(self) -> list[str]:
        """Settings whose images are of one kind, a sentence for two of them."""
        sets = {name: getattr(self, name) for name in _SETS}
        return [
            f"{one} and {other} must have no kind of image in common, but {sets[one]} and "
            f"{sets[other]} both hold {common}; take another set for one of them"
            for one, other in itertools.combinations(sets, 2)
            if (common := common_kinds(sets[one], sets[other]))
        ]

    @property
    def _other_data(self) -> list[str]:
        """Outliers that are not of the data set."""
        return [n for n in (self.validation_outliers, self.outliers) if n != UNSEEN_CLASS]

    @property
    def data_digest(self) -> str:
        """Digests of the data set and of the outliers."""
        digests = [super().data_digest, *map(outliers_digest, self._other_data)]
        return "+".join(filter(None, digests))

    def prepare(self) -> None:
        """Fetch and check the data set and the outliers."""
        super().prepare()
        for name in self._other_data:
            prepare_outliers(name)

    def load(self) -> Dataset:
        """The data set, without the unseen class where there is one."""
        dataset = super().load()
        if self.outliers != UNSEEN_CLASS:
            return dataset
        return without_class(dataset, self.left_out, self.n_train)

    def evaluate(
        self,
        fit: Fit,
        *,
        holdout: Holdout,
        rng: torch.Generator,
        report: Report,
        checkpoint: Checkpoint,
    ) -> Outcome:
        """Fit once; its steps are epochs."""
        dataset = self.load()
        validation_rng, test_rng = spawn(rng, 2)
        mixed = {"validation": self._mix(dataset, "validation", validation_rng)}
        if holdout == "test":
            mixed["test"] = self._mix(dataset, "test", test_rng)
        predictive = fit(self.problem(dataset), report=report)
        ranked = {name: images.rank(predictive, self.n_samples) for name, images in mixed.items()}
        (validation, _), (scored, right) = ranked["validation"], ranked[holdout]
        chosen = chosen_score(self.score, validation)
        found = outlier_scores(scored.scores[chosen], scored.is_positive)
        return Outcome(
            scores={**found, "accuracy": right},
            tables=tables(validation, scored, chosen, dataset.n_classes),
        )

    def _mix(self, dataset: Dataset, holdout: Holdout, rng: torch.Generator) -> _Mixed:
        outlier_rng, sample_rng = spawn(rng, 2)
        ordinary = dataset.holdout(holdout)
        outliers = self._outliers(dataset, holdout, outlier_rng)
        if not (len(ordinary) and len(outliers)):
            raise DataError(
                f"{dataset.name}: there must be ordinary {holdout} images and outliers to them, "
                f"but with left_out={self.left_out} there are {len(ordinary)} and "
                f"{len(outliers)}; leave out another class"
            )
        return _Mixed(ordinary, outliers[: len(ordinary)], sample_rng)

    def _outliers(self, dataset: Dataset, holdout: Holdout, rng: torch.Generator) -> torch.Tensor:
        name = self.outliers if holdout == "test" else self.validation_outliers
        if name == UNSEEN_CLASS:
            split = super().load().holdout(holdout)
            return split.inputs[split.targets == self.left_out]
        height, width = dataset.image_shape
        if name in NOISE:
            return load_outliers(name, holdout, (dataset.n_channels * height, width), rng)
        grey = load_outliers(name, holdout, (height, width), rng)
        return grey.repeat(1, dataset.n_channels)


@dataclass(frozen=True)
class _Mixed:
    """Ordinary images, and no more outliers than there are of them."""

    ordinary: Split
    outliers: torch.Tensor
    rng: torch.Generator

    def rank(self, predictive: Predictive, n_samples: int) -> tuple[Ranked, float]:
        """All of them with their scores; the accuracy on the ordinary ones, %."""
        n = len(self.ordinary)
        inputs = torch.cat([self.ordinary.inputs, self.outliers])  # under the same samples
        outputs = sample_outputs(predictive, inputs, n_samples, self.rng)
        is_outlier = torch.arange(len(inputs)) >= n
        right = accuracy(mixture_log_probs(outputs[:, :n]), self.ordinary.targets)
        return Ranked(uncertainty_scores(outputs), is_outlier), right


def without_class(dataset: Dataset, left_out: int, n_train: int | None) -> Dataset:
    """What of the data set, and of its first ``n_train`` training images, is of other classes.

    Raises:
        DataError: no training image is.
    """

    def others(split: Split) -> Split:
        kept = split.targets != left_out
        targets = split.targets[kept]
        return Split(split.inputs[kept], targets - (targets > left_out).long())

    train = others(first(dataset.train, n_train))
    if not len(train):
        raise DataError(
            f"n_train must leave training images of {dataset.name} that are not of class "
            f"{left_out}, but with n_train={n_train} all are; raise it or leave out another class"
        )
    return replace(
        dataset,
        train=train,
        validation=others(dataset.validation),
        n_classes=dataset.n_classes - 1,
        read_test=lambda: others(dataset.read_test()),
    )


def outlier_scores(score: torch.Tensor, is_outlier: torch.Tensor) -> dict[str, float]:
    """The metrics of an uncertainty score ``(n,)`` that should be high where ``is_outlier``."""
    return {
        "auroc": auroc(score, is_outlier),
        "aupr_in": aupr(-score, ~is_outlier),
        "aupr_out": aupr(score, is_outlier),
        "fpr95": fpr_at_tpr(score, is_outlier),
        "base_rate": 100 * is_outlier.double().mean().item(),
    }
