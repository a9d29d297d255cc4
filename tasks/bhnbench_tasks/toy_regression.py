"""Toy regression: one noisy curve, and what a method believes away from its data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
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
    Problem,
    Report,
    Split,
    Table,
    Task,
)
from bhnbench.likelihoods import Gaussian
from bhnbench.metrics import LOG_LIKELIHOOD, RMSE
from bhnbench.space import Int, setting
from bhnbench_tasks.figures import draw_predictive_bands
from bhnbench_tasks.networks import Homoscedastic
from bhnbench_tasks.streams import spawn

NOISE_SD = 0.02
N_HOLDOUT = 1000
N_CROSSES = 50  # training points that the figure shows


@dataclass(frozen=True, kw_only=True)
class ToyRegression(Task):
    """The curve of Blundell et al. (2015), "Weight uncertainty in neural networks", figure 5.

    y = x + 0.3 sin(2 pi (x + e)) + 0.3 sin(4 pi (x + e)) + e with e ~ N(0, 0.02^2) and x uniform
    on [0, 0.5]. Training, validation and test examples are fresh draws, 1000 for each holdout.
    The network is 1-50-1 with ReLU and one learned noise scale, as in Krueger et al. (2017),
    "Bayesian hypernetworks", figure 1. Scores are taken where there are data; the figure shows
    the predictive on [-0.5, 1.5], where there mostly are none.

    Departures: 100 epochs instead of 1000, so that a run takes seconds; the noise scale is an
    ordinary parameter of the network, which a method may treat as random or not. The noise
    enters the sines too, so its size depends on x: a single scale is misspecified, as published.
    """

    n_train: int = setting(1000, "training examples", valid=Int(1, 100_000))
    epochs: int = setting(100, "passes over the training examples", valid=Int(1, 100_000))
    batch_size: int = setting(32, "examples in a minibatch", valid=Int(1, 100_000))
    n_hidden: int = setting(50, "units of the hidden layer", valid=Int(1, 10_000))
    n_samples: int = setting(100, "posterior samples at scoring", valid=Int(1, 100_000))

    metrics: ClassVar[tuple[Metric, ...]] = (LOG_LIKELIHOOD, RMSE)
    figures: ClassVar[Mapping[str, Draw]] = {"predictive_bands": draw_predictive_bands}

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
        train_rng, validation_rng, test_rng, score_rng, grid_rng = spawn(rng, 5)
        problem = self._problem(
            draw_curve(self.n_train, train_rng), draw_curve(N_HOLDOUT, validation_rng)
        )
        predictive = fit(problem, report=report)
        scored = problem.validation if holdout == "validation" else draw_curve(N_HOLDOUT, test_rng)
        outputs = predictive.sample(scored.inputs, self.n_samples, rng=score_rng)
        return Outcome(
            scores=problem.likelihood.scores(outputs, scored.targets),
            tables={
                "predictive_band": predictive_band(predictive, self.n_samples, grid_rng),
                "training_points": _columns(problem.train),
            },
        )

    def _problem(self, train: Split, validation: Split) -> Problem:
        return Problem(
            train=train,
            validation=validation,
            likelihood=Gaussian(),
            network=partial(Homoscedastic, self.n_hidden),
            epochs=self.epochs,
            batch_size=self.batch_size,
        )


def draw_curve(n: int, rng: torch.Generator) -> Split:
    """``n`` fresh examples: inputs and targets ``(n, 1)``."""
    x = 0.5 * torch.rand(n, 1, generator=rng)
    noise = NOISE_SD * torch.randn(n, 1, generator=rng)
    phase = 2 * math.pi * (x + noise)
    return Split(x, x + 0.3 * torch.sin(phase) + 0.3 * torch.sin(2 * phase) + noise)


def predictive_band(predictive: Predictive, n_samples: int, rng: torch.Generator) -> Table:
    """The predictive over a grid: x, mean, mean_sd (of the mean function), sd (noise too)."""
    grid = torch.linspace(-0.5, 1.5, 201).unsqueeze(-1)
    outputs = predictive.sample(grid, n_samples, rng=rng).detach()
    means, noise_sds = (t.squeeze(-1).double() for t in Gaussian().split(outputs))
    mean_variance = means.var(0, correction=0)
    columns = {
        "x": grid.squeeze(-1),
        "mean": means.mean(0),
        "mean_sd": mean_variance.sqrt(),
        "sd": (mean_variance + noise_sds.square().mean(0)).sqrt(),
    }
    return {name: column.numpy() for name, column in columns.items()}


def _columns(split: Split) -> dict[str, np.ndarray]:
    inputs, targets = split.inputs[:N_CROSSES, 0], split.targets[:N_CROSSES, 0]
    return {"x": inputs.numpy().copy(), "y": targets.numpy().copy()}
