"""Digit classification: accuracy and calibration of one fit on digits or MNIST."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from bhnbench.contract import Checkpoint, Draw, Fit, Holdout, Metric, Outcome, Report
from bhnbench.detection import AURC, aurc
from bhnbench.metrics import ACCURACY, BRIER, ECE, NLL, mixture_log_probs, reliability_bins
from bhnbench.uncertainty import class_probabilities, least_confidence
from bhnbench_tasks.figures.reliability import draw_reliability
from bhnbench_tasks.image_task import ImageTask
from bhnbench_tasks.streams import spawn


@dataclass(frozen=True, kw_only=True)
class DigitClassification(ImageTask):
    """Classify handwritten digits, and score the mean class probabilities.

    With ``dataset: mnist, n_train: 5000`` these are the data of the MNIST-5000 experiment of
    Krueger et al. (2017), "Bayesian hypernetworks": the first 5000 training images, the last
    10 000 images of the training file for validation, the 10 000 test images. ``digits`` (1000
    training, 399 validation, 398 test images of 8x8 pixels) needs no download. Pixels are in
    [0, 1]. The splits are fixed; seeds differ in the method's random stream only.

    The network is an MLP with ``n_layers`` hidden layers of ``n_hidden`` units, or one of two
    that the papers prune: ``lenet_300_100`` (hidden layers of 300 and 100 units) and ``lenet_5``
    (convolutions of 20 and 50 filters, then 500 units; for MNIST).

    ``ece`` and the reliability diagram compare the largest mean probability of each image with
    how often it is right (Guo et al., 2017, "On calibration of modern neural networks"); ``aurc``
    ranks the images by it (Geifman, Uziel and El-Yaniv, 2019, "Bias-reduced uncertainty estimation
    for deep neural classifiers").

    Departures from the paper's 800 units (in two layers, as far as can be told) and 200 to 500
    epochs: smaller defaults, so that a
    run takes seconds. The method decides which epoch's parameters it returns; most of
    the built-in ones return the best on validation data.
    """

    version: ClassVar[str] = "2"
    metrics: ClassVar[tuple[Metric, ...]] = (ACCURACY, NLL, BRIER, ECE, AURC)
    figures: ClassVar[Mapping[str, Draw]] = {"reliability": draw_reliability}

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
        (score_rng,) = spawn(rng, 1)
        problem = self.problem(dataset)
        predictive = fit(problem, report=report)
        scored = dataset.holdout(holdout)
        outputs = predictive.sample(scored.inputs, self.n_samples, rng=score_rng).detach()
        probs = mixture_log_probs(outputs).exp()
        # As doubt in float64: in float32 the confidence in many images is 1.
        doubt = least_confidence(class_probabilities(outputs))
        risk = aurc(-doubt, probs.argmax(-1) == scored.targets)
        bins = reliability_bins(probs, scored.targets)
        return Outcome(
            scores=problem.likelihood.scores(outputs, scored.targets) | {"aurc": risk},
            tables={"reliability": {name: column.cpu().numpy() for name, column in bins.items()}},
        )
