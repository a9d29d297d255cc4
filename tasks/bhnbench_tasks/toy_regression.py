"""Toy regression: one noisy curve, and what a method believes away from its data."""

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
    Problem,
    Report,
    Split,
    Table,
    Task,
)
from bhnbench.likelihoods import Gaussian
from bhnbench.space import Choice, Float, Int, setting
from bhnbench_tasks.curves import CURVES, Curve
from bhnbench_tasks.figures.bands import draw_predictive_bands
from bhnbench_tasks.image_task import first
from bhnbench_tasks.networks import NOISES, regression_network
from bhnbench_tasks.regression_scores import METRICS, draw_calibration, regression_scores
from bhnbench_tasks.scaling import Scaling
from bhnbench_tasks.streams import spawn

N_HOLDOUT = 1000
N_CROSSES = 50  # training points that the figure shows
N_GRID = 201
SD_INSIDE = Metric(
    "sd_inside", "minimize", "", "mean sd of the mean function where there are data"
)
SD_OUTSIDE = Metric(
    "sd_outside", "maximize", "", "mean sd of the mean function where there are none"
)


@dataclass(frozen=True, kw_only=True)
class ToyRegression(Task):
    """A noisy curve of one input, scored where there are data and drawn where there are none.

    ``curve`` is one of (e is N(0, noise_sd^2); a number of examples, epochs or units that is null
    is the one in brackets):

    - ``blundell``: y = x + 0.3 sin(2 pi (x + e)) + 0.3 sin(4 pi (x + e)) + e, noise_sd 0.02, x
      uniform on [0, 0.5], in its own units (1000 examples, 100 epochs, 50 units). Blundell et al.
      (2015), "Weight uncertainty in neural networks", figure 5; the network is that of Krueger et
      al. (2017), "Bayesian hypernetworks", figure 1. The noise enters the sines, so its size
      depends on x: one scale for all inputs is misspecified, as published.
    - ``cubic``: y = x^3 + e, noise_sd 3, x uniform on [-4, 4] (20, 1000, 100). Hernández-Lobato
      and Adams (2015), "Probabilistic backpropagation", section 5.1; with noise_sd 9 it is the toy
      of Pawlowski et al. (2017), "Implicit weight uncertainty in neural networks".
    - ``sinusoids``: y = 0.01 x^1.5 sin(2.5 x) + 0.1 x - 1 + e / (0.5 x)^2, noise_sd 1, x uniform
      on [6, 8] and [9, 12] (500, 200, 50): a second toy in the code of Krueger et al.
    - ``gap``: y = cos(2 x) + 0.3 x + e, noise_sd 0.1, x uniform on [-2, -1] and [1, 2] (100, 500,
      50). The curve is ours; the question, whether a method doubts between two groups of data, is
      that of Foong et al. (2019), "'In-between' uncertainty in Bayesian neural networks". Who
      joins the groups by a line is wrong.

    All but ``blundell`` are given to networks standardised by the training examples and scored in
    their own units. All examples are fresh draws of the same curve, 1000 of them for each holdout.
    A fit may stop by the first of the validation examples, as many as it trains on: who has few
    examples has few to validate with. The network has one hidden layer and, with ``noise:
    homoscedastic``, one learned noise scale; with ``heteroscedastic`` a scale for each input.
    ``sd_inside`` and ``sd_outside`` are the standard deviation over posterior samples of the mean
    function, averaged over the figure's grid: where there are data, which should leave little
    doubt, and where there are none. Log-likelihood, rmse and calibration are those of test points
    where there are data.

    Departures: as many steps as make a run take seconds, instead of 1000 epochs for ``blundell``,
    40 for ``cubic``, at a learning rate of 0.1, and 20 000 steps for ``sinusoids``; ReLU and 50
    units there instead of ten of tanh, and one noise scale for all inputs, where the paper's
    network gives one for each (``noise: heteroscedastic``). The noise scale is learned also where
    the papers give it, as an ordinary parameter, which a method may treat as random or not.
    """

    curve: str = setting("blundell", "the curve", valid=Choice(*CURVES))
    noise_sd: float | None = setting(
        None, "standard deviation of the noise; null for the curve's own", valid=Float(1e-6, 1e6)
    )
    noise: str = setting("homoscedastic", "the noise that the network has", valid=Choice(*NOISES))
    n_train: int | None = setting(
        None, "training examples; null for the curve's own", valid=Int(2, 100_000)
    )
    epochs: int | None = setting(
        None, "passes over the training examples; null for the curve's own", valid=Int(1, 100_000)
    )
    batch_size: int = setting(32, "examples in a minibatch", valid=Int(1, 100_000))
    n_hidden: int | None = setting(
        None, "units of the hidden layer; null for the curve's own", valid=Int(1, 10_000)
    )
    n_samples: int = setting(100, "posterior samples at scoring", valid=Int(1, 100_000))

    version: ClassVar[str] = "3"
    metrics: ClassVar[tuple[Metric, ...]] = (*METRICS, SD_INSIDE, SD_OUTSIDE)
    figures: ClassVar[Mapping[str, Draw]] = {
        "predictive_bands": draw_predictive_bands,
        "calibration": draw_calibration,
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
        train_rng, validation_rng, test_rng, score_rng, grid_rng = spawn(rng, 5)
        curve = CURVES[self.curve]
        train = self._draw(self.n_train or curve.n_train, train_rng)
        validation = self._draw(N_HOLDOUT, validation_rng)
        scaling = Scaling.of(train) if curve.is_scaled else Scaling.none(train)
        few = first(validation, len(train))
        predictive = fit(self._problem(scaling, train, few), report=report)

        scored = validation if holdout == "validation" else self._draw(N_HOLDOUT, test_rng)
        means, sds = self._predict(predictive, scaling, scored.inputs, score_rng)
        grid = torch.linspace(*curve.shown, N_GRID).unsqueeze(-1)
        band = predictive_band(curve, grid, *self._predict(predictive, scaling, grid, grid_rng))
        scores, calibration = regression_scores(means, sds, scored.targets)
        return Outcome(
            scores=scores | doubt(curve, band),
            tables={
                "predictive_band": {name: column.numpy() for name, column in band.items()},
                "training_points": _columns(train),
                "calibration": calibration,
            },
        )

    def _draw(self, n: int, rng: torch.Generator) -> Split:
        curve = CURVES[self.curve]
        noise_sd = curve.noise_sd if self.noise_sd is None else self.noise_sd
        return curve.draw(n, noise_sd, rng)

    def _problem(self, scaling: Scaling, train: Split, validation: Split) -> Problem:
        curve = CURVES[self.curve]
        return Problem(
            train=scaling.apply(train),
            validation=scaling.apply(validation),
            likelihood=Gaussian(),
            network=regression_network(self.noise, 1, self.n_hidden or curve.n_hidden),
            epochs=self.epochs or curve.epochs,
            batch_size=self.batch_size,
        )

    def _predict(
        self, predictive: Predictive, scaling: Scaling, inputs: torch.Tensor, rng: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Means and standard deviations of the mixture, ``(n_samples, n, 1)``."""
        outputs = predictive.sample(scaling.apply_to_inputs(inputs), self.n_samples, rng=rng)
        return scaling.predictions(outputs)


def predictive_band(
    curve: Curve, grid: torch.Tensor, means: torch.Tensor, sds: torch.Tensor
) -> dict[str, torch.Tensor]:
    """The predictive over a grid, float64 ``(n,)`` each.

    Returns:
        ``x``; ``truth``, the curve without noise; ``mean``; ``mean_sd`` of the mean function;
        ``sd``, with the noise.
    """
    mean_variance = means.var(0, correction=0)
    columns = {
        "x": grid.double(),
        "truth": curve.truth(grid.double()),
        "mean": means.mean(0),
        "mean_sd": mean_variance.sqrt(),
        "sd": (mean_variance + sds.square().mean(0)).sqrt(),
    }
    return {name: column.squeeze(-1) for name, column in columns.items()}


def doubt(curve: Curve, band: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """``sd_inside`` and ``sd_outside``, in the unit of the targets."""
    inside, sd = curve.is_inside(band["x"]), band["mean_sd"]
    return {"sd_inside": sd[inside].mean().item(), "sd_outside": sd[~inside].mean().item()}


def _columns(split: Split) -> Table:
    inputs, targets = split.inputs[:N_CROSSES, 0], split.targets[:N_CROSSES, 0]
    return {"x": inputs.numpy().copy(), "y": targets.numpy().copy()}
