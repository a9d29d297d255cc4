"""Anomaly detection: does the uncertainty tell images of no known class?"""

from __future__ import annotations

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
from bhnbench_tasks.datasets import Dataset
from bhnbench_tasks.datasets.outliers import (
    NOISE,
    OUTLIERS,
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

    **Nothing tuned has seen the outliers it is scored on, nor any of their kind.** A search is
    scored on ``validation_outliers``, an evaluation on ``outliers``, and the two must differ. The
    score is fixed in the same way: ``score: auto`` takes, of the four in
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
        """Outliers that were tuned on, or that are no outliers."""
        mistakes = super().mistakes()
        if self.outliers == self.validation_outliers:
            mistakes.append(
                "outliers and validation_outliers must differ, so that nothing is tuned on what "
                f"it is scored on, but both are {self.outliers}"
            )
        if self.dataset in (self.outliers, self.validation_outliers):
            mistakes.append(f"outliers must not be of the data set itself, {self.dataset}")
        return mistakes

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
        predictive = fit(self.problem(dataset), report=report)
        validation, right = self._rank(predictive, dataset, "validation", validation_rng)
        scored = validation
        if holdout == "test":
            scored, right = self._rank(predictive, dataset, "test", test_rng)
        chosen = chosen_score(self.score, validation)
        found = outlier_scores(scored.scores[chosen], scored.is_positive)
        return Outcome(
            scores={**found, "accuracy": right},
            tables=tables(validation, scored, chosen, dataset.n_classes),
        )

    def _rank(
        self, predictive: Predictive, dataset: Dataset, holdout: Holdout, rng: torch.Generator
    ) -> tuple[Ranked, float]:
        """Ordinary images and outliers with their scores; the accuracy on the former, %."""
        outlier_rng, sample_rng = spawn(rng, 2)
        ordinary = dataset.holdout(holdout)
        n = len(ordinary)
        outliers = self._outliers(dataset, holdout, outlier_rng)[:n]
        inputs = torch.cat([ordinary.inputs, outliers])  # together: the same posterior samples
        outputs = sample_outputs(predictive, inputs, self.n_samples, sample_rng)
        is_outlier = torch.arange(len(inputs)) >= n
        right = accuracy(mixture_log_probs(outputs[:, :n]), ordinary.targets)
        return Ranked(uncertainty_scores(outputs), is_outlier), right

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


def without_class(dataset: Dataset, left_out: int, n_train: int | None) -> Dataset:
    """What of the data set, and of its first ``n_train`` training images, is of other classes.

    Raises:
        DataError: the class is not there, or fewer than two others are.
    """
    if not left_out < dataset.n_classes > 2:
        raise DataError(
            f"{dataset.name}: left_out={left_out} must be one of three classes or more, but there "
            f"are {dataset.n_classes}, numbered from 0; name another class or other outliers"
        )

    def others(split: Split) -> Split:
        kept = split.targets != left_out
        targets = split.targets[kept]
        return Split(split.inputs[kept], targets - (targets > left_out).long())

    return replace(
        dataset,
        train=others(first(dataset.train, n_train)),
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
