"""Digit classification: accuracy and calibration of one fit on digits or MNIST."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch

from bhnbench.contract import (
    Checkpoint,
    Fit,
    Holdout,
    Metric,
    Outcome,
    Problem,
    Report,
    Split,
    Task,
)
from bhnbench.likelihoods import Categorical
from bhnbench.metrics import ACCURACY, BRIER, ECE, NLL
from bhnbench.space import Int, setting
from bhnbench_tasks.datasets import (
    NAMES,
    Dataset,
    data_digest,
    load_dataset,
    n_train_rows,
    prepare_dataset,
)
from bhnbench_tasks.networks import mlp
from bhnbench_tasks.streams import spawn


@dataclass(frozen=True, kw_only=True)
class DigitClassification(Task):
    """Classify handwritten digits with an MLP, and score the mean class probabilities.

    With ``dataset: mnist, n_train: 5000`` these are the data of the MNIST-5000 experiment of
    Krueger et al. (2017), "Bayesian hypernetworks": the first 5000 training images, the last
    10 000 images of the training file for validation, the 10 000 test images. ``digits`` (1000
    training, 399 validation, 398 test images of 8x8 pixels) needs no download. Pixels are in
    [0, 1]. The splits are fixed; seeds differ in the method's random stream only.

    Departures from the paper's 2 x 800 units and 200 to 500 epochs: smaller defaults, so that a
    run takes seconds. The method decides which epoch's parameters it returns; the
    built-in ones return the best on validation data.
    """

    dataset: str = setting("digits", "data set", valid=NAMES)
    n_train: int | None = setting(
        None, "first training images to use; null for all", valid=Int(1, 50_000)
    )
    epochs: int = setting(50, "passes over the training images", valid=Int(1, 100_000))
    batch_size: int = setting(32, "images in a minibatch", valid=Int(1, 50_000))
    n_hidden: int = setting(100, "ReLU units of a hidden layer", valid=Int(1, 10_000))
    n_layers: int = setting(2, "hidden layers", valid=Int(1, 3))
    n_samples: int = setting(100, "posterior samples at scoring", valid=Int(1, 10_000))

    metrics: ClassVar[tuple[Metric, ...]] = (ACCURACY, NLL, BRIER, ECE)

    def __post_init__(self) -> None:
        available = n_train_rows(self.dataset)
        if self.n_train is not None and self.n_train > available:
            raise ValueError(
                f"n_train <= {available} must hold for {self.dataset}, "
                f"but got n_train={self.n_train}; null takes all"
            )

    @property
    def data_digest(self) -> str:
        """Digest of the data set."""
        return data_digest(self.dataset)

    def prepare(self) -> None:
        """Fetch and check the data set."""
        prepare_dataset(self.dataset)

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
        dataset = load_dataset(self.dataset)
        (score_rng,) = spawn(rng, 1)
        problem = self._problem(dataset)
        predictive = fit(problem, report=report)
        scored = dataset.holdout(holdout)
        outputs = predictive.sample(scored.inputs, self.n_samples, rng=score_rng).detach()
        return Outcome(scores=problem.likelihood.scores(outputs, scored.targets))

    def _problem(self, dataset: Dataset) -> Problem:
        train = dataset.train
        return Problem(
            train=Split(train.inputs[: self.n_train], train.targets[: self.n_train]),
            validation=dataset.validation,
            likelihood=Categorical(dataset.n_classes),
            network=partial(
                mlp, dataset.n_inputs, self.n_hidden, self.n_layers, dataset.n_classes
            ),
            epochs=self.epochs,
            batch_size=self.batch_size,
        )
