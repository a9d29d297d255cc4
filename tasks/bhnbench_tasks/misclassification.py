"""Misclassification: does the uncertainty tell which answers are wrong?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
from bhnbench.detection import AURC, AUROC, aupr, aurc, auroc, risk_coverage_table
from bhnbench.metrics import ACCURACY, mixture_log_probs
from bhnbench.space import setting
from bhnbench_tasks.detectors import (
    AUTO,
    SCORE_NAMES,
    Ranked,
    chosen_score,
    tables,
)
from bhnbench_tasks.figures.histograms import DrawHistograms
from bhnbench_tasks.figures.roc import draw_risk_coverage, draw_roc
from bhnbench_tasks.image_task import ImageTask
from bhnbench_tasks.scores import sample_outputs, uncertainty_scores
from bhnbench_tasks.streams import spawn

AUPR_ERROR = Metric("aupr_error", "maximize", "%", "average precision in finding the errors")
AUPR_SUCCESS = Metric(
    "aupr_success", "maximize", "%", "average precision in finding the right answers"
)
BASE_RATE = Metric(
    "base_rate", "minimize", "%", "share of errors: what a random detector has as aupr_error"
)


@dataclass(frozen=True, kw_only=True)
class Misclassification(ImageTask):
    """Find a classifier's errors by its uncertainty.

    The error detection of Hendrycks and Gimpel (2017), "A baseline for detecting misclassified
    and out-of-distribution examples in neural networks", section 3: the images of the holdout
    split are ranked by an uncertainty score, and those that the mean class probabilities get
    wrong (the positives) should come first. AUROC does not depend on how many there are, AUPR
    does: a random detector has an ``aupr_error`` of ``base_rate`` and an ``aupr_success`` of
    100 less that. ``aurc`` is the mean error over coverages of a classifier that refuses the
    images it is least sure of (Geifman and El-Yaniv, 2017, "Selective classification for deep
    neural networks").

    Each method makes errors of its own, and those of a better classifier are fewer and harder to
    find: read AUROC beside the accuracy. ``aurc`` counts both.

    The score is chosen once: ``score: auto`` takes, of the four in ``bhnbench_tasks.scores``,
    the one with the highest AUROC on the validation split, in search and in evaluation alike; it
    is never the best of four on test data. The table ``scores`` has all of them.

    Without errors, or without right answers, there is nothing to rank: AUROC is 50 and AUPR 0 or
    100, what a score has that is equal for all images.

    Departures: the paper's score is the largest probability alone (``score: least_confidence``),
    its network has 3 x 256 GELU units and is trained on the validation images too.
    """

    score: str = setting(AUTO, "what images are ranked by; auto: the best on validation",
                         valid=SCORE_NAMES)  # fmt: skip

    metrics: ClassVar[tuple[Metric, ...]] = (
        AUROC, AUPR_ERROR, AUPR_SUCCESS, AURC, ACCURACY, BASE_RATE,
    )  # fmt: skip
    figures: ClassVar[Mapping[str, Draw]] = {
        "roc": draw_roc,
        "risk_coverage": draw_risk_coverage,
        "score_histograms": DrawHistograms("errors", "right answers"),
    }

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
        validation = self._rank(predictive, dataset.validation, validation_rng)
        scored = validation
        if holdout == "test":
            scored = self._rank(predictive, dataset.holdout("test"), test_rng)
        chosen = chosen_score(self.score, validation)
        return Outcome(
            scores=error_scores(scored.scores[chosen], scored.is_positive),
            tables={
                **tables(validation, scored, chosen, dataset.n_classes),
                "risk_coverage": risk_coverage_table(-scored.scores[chosen], ~scored.is_positive),
            },
        )

    def _rank(self, predictive: Predictive, split: Split, rng: torch.Generator) -> Ranked:
        outputs = sample_outputs(predictive, split.inputs, self.n_samples, rng)
        is_wrong = mixture_log_probs(outputs).argmax(-1) != split.targets
        return Ranked(uncertainty_scores(outputs), is_wrong.cpu())


def error_scores(score: torch.Tensor, is_wrong: torch.Tensor) -> dict[str, float]:
    """The metrics of an uncertainty score ``(n,)`` that should be high where ``is_wrong``."""
    error_rate = 100 * is_wrong.double().mean().item()
    return {
        "auroc": auroc(score, is_wrong),
        "aupr_error": aupr(score, is_wrong),
        "aupr_success": aupr(-score, ~is_wrong),
        "aurc": aurc(-score, ~is_wrong),
        "accuracy": 100 - error_rate,
        "base_rate": error_rate,
    }
