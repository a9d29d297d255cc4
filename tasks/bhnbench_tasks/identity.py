"""Identity: does the posterior of a and b in y = a b x have both of its modes?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import nn

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
from bhnbench.likelihoods import MIN_SCALE, Gaussian
from bhnbench.metrics import LOG_LIKELIHOOD
from bhnbench.space import Float, Int, setting
from bhnbench_tasks.figures.density import draw_posterior
from bhnbench_tasks.product_posterior import ProductPosterior
from bhnbench_tasks.streams import spawn

LARGEST_INPUT = 1.5
N_HOLDOUT = 100
N_SHOWN = 500  # samples that the figure shows
CREDIBLE = 0.99  # mass of the region that counts as a mode
SMALLER_MODE_MASS = Metric(
    "smaller_mode_mass", "maximize", "%", "samples in that mode of the posterior which has fewer"
)
DISTANCE = Metric("distance", "minimize", "", "mean distance of ab to 1")
KL = Metric("kl", "minimize", "nats", "KL divergence of the samples to the exact posterior")


@dataclass(frozen=True, kw_only=True)
class Identity(Task):
    """Learn y = x with a network of two weights, y = a b x, whose posterior has two modes.

    Whatever the data, (a, b) and (-a, -b) are equally likely: the posterior lies along the two
    branches of b = 1/a. Its modes are near (1, 1) and (-1, -1), and between them is no mass. A
    method with a posterior of one peak finds one of them. Krueger et al. (2017), "Bayesian
    hypernetworks", figure 2.

    Inputs are uniform on [-1.5, 1.5] and targets equal them. The likelihood is Gaussian with the
    known ``noise_sd``, the prior on a and b is N(0, ``prior_sd^2``): so the exact posterior is
    known up to a constant, and its masses by numerical integration (``ProductPosterior``). The
    prior belongs to a method, which has to be told this one (``prior_sd: 1`` and the like) if it
    is to find this posterior. A minibatch is all examples: with fewer, what a sampler samples is
    another law. Nor does a fit have validation data: the epoch of the highest likelihood is one at
    which the posterior is still too narrow.

    ``smaller_mode_mass`` is the share of posterior samples in the smaller mode: those with both
    weights positive, or both negative, that lie in the exact posterior's 99 % region of highest
    density. It is 49.5 % of the exact posterior (less where noise or prior leave signs open), and
    0 of a posterior of one mode. Points in both modes, as an ensemble's, have it too, and the
    least ``distance``: the spread of the exact posterior costs some. ``kl`` tells them apart. That
    is the divergence of the samples, as a histogram, to the exact posterior: to miss a mode costs
    log 2 = 0.69, to be too narrow costs more, and that there are finitely many samples adds some
    hundredths. Samples far away count as lying at the edge of the histogram. The log-likelihood is
    that of fresh examples, 100 for each holdout; the other scores need no examples, and differ
    between search and evaluation in the seeds alone.

    A predictive gives samples of outputs, not of weights. So the network has a second input,
    which is 0 in every example: where it is 1, the two outputs are a and b instead of a mean and
    a scale. a and b are the weights of two linear layers without bias that see a constant 1, so
    that methods which replace layers, drop their inputs, or draw all parameters can do so.

    Departures: the paper's code has inputs of 6 to 12 with next to no noise, where the posterior
    is a line, a third weight for the scale, and a prior of variance 1/20 that pulls at (1, 1).
    """

    n_train: int = setting(20, "training examples", valid=Int(2, 10_000))
    noise_sd: float = setting(0.5, "known standard deviation of the noise", valid=Float(0.1, 10))
    prior_sd: float = setting(
        1.0, "standard deviation of the exact posterior's prior", valid=Float(0.1, 5)
    )
    epochs: int = setting(1000, "passes over the examples, a step each", valid=Int(1, 1_000_000))
    n_samples: int = setting(2000, "posterior samples at scoring", valid=Int(1, 100_000))

    version: ClassVar[str] = "3"
    metrics: ClassVar[tuple[Metric, ...]] = (SMALLER_MODE_MASS, DISTANCE, KL, LOG_LIKELIHOOD)
    figures: ClassVar[Mapping[str, Draw]] = {"posterior": draw_posterior}

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
        train_rng, validation_rng, test_rng, score_rng, weights_rng = spawn(rng, 5)
        train = draw(self.n_train, train_rng)
        problem = self._problem(train)
        predictive = fit(problem, report=report)

        scored = draw(N_HOLDOUT, validation_rng if holdout == "validation" else test_rng)
        outputs = predictive.sample(scored.inputs, self.n_samples, rng=score_rng).detach()
        log_likelihood = problem.likelihood.scores(outputs, scored.targets)["log_likelihood"]
        weights = sample_weights(predictive, self.n_samples, weights_rng)
        exact = ProductPosterior.of(train, self.noise_sd, self.prior_sd)
        return Outcome(
            scores={
                "smaller_mode_mass": smaller_mode_mass(weights, exact),
                "distance": (weights.prod(-1) - 1).abs().mean().item(),
                "kl": exact.kl_of(weights),
                "log_likelihood": log_likelihood,
            },
            tables={"samples": _columns(weights[:N_SHOWN]), "posterior": exact.as_table()},
        )

    def _problem(self, train: Split) -> Problem:
        return Problem(
            train=train,
            validation=Split(train.inputs[:0], train.targets[:0]),
            likelihood=Gaussian(),
            network=partial(Product, self.noise_sd),
            epochs=self.epochs,
            batch_size=self.n_train,
        )


class Product(nn.Module):
    """Mean ``a b x``: inputs ``(n, 2)``, of which the second is 0, or 1 to ask for a and b.

    Outputs ``(n, 2)``: mean and raw scale of ``bhnbench.likelihoods.Gaussian``; or a and b.
    """

    def __init__(self, noise_sd: float) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        self.raw_scale = math.log(math.expm1(noise_sd - MIN_SCALE))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Both outputs."""
        x, asks = inputs.chunk(2, dim=-1)
        ones = torch.ones_like(x)
        a, b = self.a(ones), self.b(ones)
        prediction = torch.cat([a * b * x, self.raw_scale * ones], dim=-1)
        return torch.where(asks > 0, torch.cat([a, b], dim=-1), prediction)


def draw(n: int, rng: torch.Generator) -> Split:
    """``n`` fresh examples: inputs ``(n, 2)``, targets ``(n, 1)``."""
    x = LARGEST_INPUT * (2 * torch.rand(n, 1, generator=rng) - 1)
    return Split(torch.cat([x, torch.zeros_like(x)], dim=-1), x)


def sample_weights(predictive: Predictive, n_samples: int, rng: torch.Generator) -> torch.Tensor:
    """Posterior samples of a and b, ``(n_samples, 2)`` float64."""
    outputs = predictive.sample(torch.tensor([[0.0, 1.0]]), n_samples, rng=rng)
    return outputs.detach().squeeze(1).double()


def smaller_mode_mass(weights: torch.Tensor, exact: ProductPosterior) -> float:
    """Share of the samples in the mode that has fewer of them, %."""
    is_near = exact.log_density(weights) >= exact.log_density_at_mass(CREDIBLE)
    shares = [(is_near & (sign * weights > 0).all(-1)).double().mean().item() for sign in (1, -1)]
    return 100 * min(shares)


def _columns(weights: torch.Tensor) -> Table:
    return {"a": weights[:, 0].numpy().copy(), "b": weights[:, 1].numpy().copy()}
