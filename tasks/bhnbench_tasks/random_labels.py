"""Random labels: who learns by heart what cannot be learned?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
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
from bhnbench.metrics import ACCURACY, NLL, accuracy, mixture_log_probs, nll
from bhnbench.space import Int, setting
from bhnbench_tasks.compression import CHUNK, SPARSITY, count_weights, pruned_network
from bhnbench_tasks.datasets import Dataset
from bhnbench_tasks.figures.bars import DrawBars
from bhnbench_tasks.figures.lines import DrawLines, Panel
from bhnbench_tasks.image_task import NETWORKS, ImageTask, first
from bhnbench_tasks.streams import spawn

SEED = 74632  # of the labels, as in Molchanov et al.'s experiment
TRAIN_ACCURACY = Metric(
    "train_accuracy", "minimize", "%", "share of the random training labels that it knows"
)

draw_summary = DrawBars(
    "summary",
    "percent",
    "%",
    ("random training\nlabels known", "accuracy on\ntrue labels", "weights\npruned"),
    high=100,
)
draw_training = DrawLines(
    "training",
    "epoch",
    "epoch",
    (Panel("train_nll", "training nll (nats)", 0),),
    marker="",
)


@dataclass(frozen=True, kw_only=True)
class RandomLabels(ImageTask):
    """Train on labels that say nothing about the images; to know them is to have memorised.

    Zhang et al. (2017), "Understanding deep learning requires rethinking generalization", show
    that ordinary networks learn random labels by heart. Molchanov, Ashukha and Vetrov (2017),
    "Variational dropout sparsifies deep neural networks", ask Bayesian ones: there a network
    with binary dropout knows 100 % of the training labels, and sparse variational dropout 10 %,
    with no weight left; either has 10 % of the true test labels.

    The labels of training and validation images are drawn uniformly from the classes, the same
    ones always: on MNIST they are those of the paper, drawn for the training file's 60 000 images
    in their order, of which the last 10 000 are our validation images. Labels of test images are
    true. The fit sees no validation images, so that it goes on to the end of its epochs: who
    keeps the best epoch on validation data would stop at the start, and its posterior would not
    have been asked. ``early_stopping`` shows that: the validation images come with labels that
    are as random as those in training, for true ones would let in what the training data do not
    know.

    ``train_accuracy``, of the training images in the problem, is scored in the search and in
    the evaluation. ``accuracy`` and ``nll`` are those of the holdout: of random labels on
    validation images, of true ones on test images; nobody can beat chance and log(n_classes)
    nats but by luck (not a little of it where few images have many in common: the label that
    most of them happen to have decides), and who is sure of what it memorised has a much larger
    nll. ``sparsity`` is 0 where the predictive cannot be pruned.

    A method that does not train at all is best here. So do not search on this task: take the
    configurations that are good elsewhere, and read the scores beside the accuracy that they
    have with true labels.

    Departures: pixels are in [0, 1], without the mean taken off; 50 000 training images of MNIST
    instead of 60 000. ``dataset: mnist, epochs: 200, batch_size: 100`` is the paper's size.
    """

    network: str = setting(
        "lenet_300_100", "the network; lenet_5 and cnn_32 are for images of 28x28", valid=NETWORKS
    )
    epochs: int = setting(100, "passes over the training images", valid=Int(1, 100_000))
    early_stopping: bool = setting(
        False, "let a method choose an epoch by validation images, with random labels too"
    )

    metrics: ClassVar[tuple[Metric, ...]] = (TRAIN_ACCURACY, ACCURACY, NLL, SPARSITY)
    figures: ClassVar[Mapping[str, Draw]] = {"summary": draw_summary, "training": draw_training}

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
        dataset = with_random_labels(self.load())
        unseen = None if self.early_stopping else first(dataset.validation, 0)
        problem = self.problem(dataset, validation=unseen)
        heard = _Listener(report)
        predictive = fit(problem, report=heard)
        train_rng, score_rng = spawn(rng, 2)
        known = self._scores(predictive, problem.train, train_rng)
        scores = self._scores(predictive, dataset.holdout(holdout), score_rng)
        scores |= {
            "train_accuracy": known["accuracy"],
            "sparsity": _sparsity_of(predictive),
        }
        percent = [scores[name] for name in ("train_accuracy", "accuracy", "sparsity")]
        return Outcome(
            scores, {"summary": {"percent": np.array(percent)}, "training": heard.table()}
        )

    def _scores(
        self, predictive: Predictive, split: Split, rng: torch.Generator
    ) -> dict[str, float]:
        """Accuracy and nll; images are sampled in chunks, each under samples of its own."""
        chunks = torch.split(split.inputs, CHUNK)
        outputs = (predictive.sample(chunk, self.n_samples, rng=rng).detach() for chunk in chunks)
        log_probs = torch.cat([mixture_log_probs(o) for o in outputs])
        return {
            "accuracy": accuracy(log_probs.exp(), split.targets),
            "nll": nll(log_probs, split.targets),
        }


class _Listener:
    """Passes reports on, and keeps the training loss of those that have one."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.points: list[tuple[int, float]] = []

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        if "train_nll" in metrics:
            self.points.append((step, metrics["train_nll"]))
        self.report(step, metrics)

    def table(self) -> dict[str, np.ndarray]:
        """Epochs and losses; empty where the method reports none."""
        epochs, losses = np.array(self.points).reshape(-1, 2).T
        return {"epoch": epochs, "train_nll": losses}


def _sparsity_of(predictive: Predictive) -> float:
    """Share of the weights that are zero, %; 0 where the predictive cannot be pruned."""
    pruned = pruned_network(predictive)
    if pruned is None:
        return 0.0
    layers = count_weights(pruned, pruned)
    return float(100 * (1 - layers["n_left"].sum() / layers["n_weights"].sum()))


def with_random_labels(dataset: Dataset) -> Dataset:
    """The same images with uniform labels, the same ones always; test labels stay true."""
    n_train, n_validation = len(dataset.train), len(dataset.validation)
    # The paper's labels come from numpy's old generator, which no other one repeats.
    drawn = np.random.RandomState(SEED).choice(dataset.n_classes, n_train + n_validation)
    labels = torch.from_numpy(drawn.astype(np.int64))
    return replace(
        dataset,
        train=Split(dataset.train.inputs, labels[:n_train]),
        validation=Split(dataset.validation.inputs, labels[n_train:]),
    )
