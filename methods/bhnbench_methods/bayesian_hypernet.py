"""Bayesian hypernetwork: an invertible flow over the weight-norm gains of a network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from bhnbench.contract import Predictive, Problem, Report
from bhnbench.space import Choice, Float, Int, hyperparameter
from bhnbench_methods.fitting import TrainedMethod, fit_models
from bhnbench_methods.flows import FLOWS, make_flow
from bhnbench_methods.layers import WeightNormLayer, run, standardise, trace, wrap
from bhnbench_methods.models import Forward, Model, find_layers, new_network
from bhnbench_methods.predictive import sample_outputs
from bhnbench_methods.training import Recipe


@dataclass(frozen=True, kw_only=True)
class BayesianHypernet(TrainedMethod):
    """A posterior over the gain of every unit, as expressive as the flow that makes it.

    Use it for a posterior with dependence between layers and several modes at little more than
    the cost of one network. Unit ``j`` has weights ``g_j v_j / |v_j|``; only the gains are
    random, ``g = h(eps)`` with ``eps ~ N(0, I)``, and one flow makes the gains of all layers
    together. Directions ``v`` and biases are point estimates. It minimises, with one ``eps`` a
    minibatch,

        -1/N sum_i log p(y_i | x_i, g) + KL / N
        KL = E[log N(eps) - log |det dh/deps| - log N(g; prior mean, 1/prior_precision)]

    ``flow`` is ``affine`` (a factorised Gaussian: Bayes by backprop on the gains), ``realnvp`` or
    ``iaf``; the last two put ``n_coupling_layers`` blocks of ``width`` hidden units after the
    affine map. The flow's output is added to the gains of the network's own initialisation and
    starts at zero with standard deviation ``initial_sd``.

    Departures: the paper's prior is centred at zero (``prior_mean: zero``), where all outputs
    are constant and no direction gets a gradient; with few labels its pull is stronger than the
    data's and the network collapses. So the default centres it at the initial gains, which are
    drawn before any data are seen. The paper's ``initial_sd`` of 0.002 needs some 6 000 steps to
    widen; the default can widen in some hundred. Log-scales go through tanh.

    Source: Krueger, Huang, Islam, Turner, Lacoste and Courville (2017), "Bayesian
    hypernetworks", sections 3-4, https://arxiv.org/abs/1710.04759.
    """

    flow: str = hyperparameter("realnvp", "family of the posterior", valid=Choice(*FLOWS))
    n_coupling_layers: int = hyperparameter(
        4, "blocks of the flow; without effect on affine", valid=Int(0, 16), search=Int(0, 12)
    )
    width: int = hyperparameter(200, "hidden units of each block", valid=Int(1, 10_000))
    prior_precision: float = hyperparameter(
        1.0,
        "inverse variance of the Gaussian prior on the gains",
        valid=Float(1e-6, 1e6),
        search=Float(0.1, 10, log=True),
    )
    prior_mean: str = hyperparameter(
        "initial",
        "centre of the prior: the initial gains, or zero",
        valid=Choice("initial", "zero"),
    )
    initial_sd: float = hyperparameter(
        0.1,
        "standard deviation of the gains at the start",
        valid=Float(0.0011, 10),
        search=Float(0.01, 0.5, log=True),
    )
    kl_annealing: bool = hyperparameter(
        False,
        "let the weight of the KL rise from 0.001 to 1 in the first half of the fit; the epoch "
        "that is kept is one of the second half",
    )
    data_init: bool = hyperparameter(
        False, "start with standardised pre-activations on 64 training examples"
    )

    def fit_many(
        self,
        problems: Sequence[Problem],
        *,
        rngs: Sequence[torch.Generator],
        reports: Sequence[Report],
        warm_starts: Sequence[Predictive | None],
    ) -> list[Predictive]:
        """Train the hypernetworks of all replicas as one computation."""
        recipe = Recipe(
            learning_rate=self.learning_rate,
            lr_decay=self.lr_decay,
            kl_annealing=self.kl_annealing,
            reports_kl=True,
            n_validation_samples=20,
        )
        models = fit_models(
            lambda problem: _HypernetModel(problem, self),
            problems,
            rngs=rngs,
            reports=reports,
            warm_starts=[[start] for start in warm_starts],
            recipe=recipe,
        )
        return [members[0] for members in models]

    def supports(self, problem: Problem) -> str | None:
        """It needs units whose gains it can draw."""
        n_gains = sum(site.n_units for site in find_layers(problem))
        if n_gains == 0:
            return "it needs a Linear or Conv layer, but the network has none"
        if n_gains == 1 and self.flow != "affine" and self.n_coupling_layers:
            return f"flow {self.flow} needs two units or more, but the network has one"
        return None


class _HypernetModel(Model):
    start: torch.Tensor

    def __init__(self, problem: Problem, method: BayesianHypernet) -> None:
        super().__init__()
        network, inputs = new_network(problem), problem.train.inputs[:64]
        found = trace(network, inputs[:2])
        self.network, self.layers = wrap(network, found.sites, WeightNormLayer)
        self.sizes = [site.n_units for site in found.sites]
        self.n_activations = found.n_activations
        self.prior_precision = method.prior_precision
        self.prior_mean = method.prior_mean
        if method.data_init:
            standardise(self.network, self.layers, inputs)
        start = torch.cat([layer.norms().detach() for layer in self.layers])
        # Added after the flow, so that its blocks see inputs near zero and move gently.
        self.register_buffer("start", start)
        shape = (len(start), method.n_coupling_layers, method.width)
        self.flow = make_flow(method.flow, *shape, method.initial_sd).to(start)

    def draw_noise(self, inputs: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        """One standard normal a gain, the same for all examples."""
        return torch.empty_like(self.start).normal_(generator=rng)

    def forward(self, inputs: torch.Tensor, noise: torch.Tensor) -> Forward:
        """Outputs, and the KL's Monte-Carlo estimate ``log q(g) - log p(g)``."""
        gains, kl = self.gains_and_kl(noise)
        return self._run(inputs, gains), kl

    def gains_and_kl(self, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Gains ``(..., n_gains)`` and ``log N(eps) - log_det - log N(g; mean, 1/precision)``."""
        shift, log_det = self.flow(noise)
        gains = self.start + shift
        from_mean = gains if self.prior_mean == "zero" else shift
        squares = self.prior_precision * from_mean.square().sum(-1) - noise.square().sum(-1)
        log_scale = len(self.start) * math.log(self.prior_precision)
        return gains, 0.5 * (squares - log_scale) - log_det  # the 2 pi cancel

    def sample(
        self, inputs: torch.Tensor, n_samples: int, *, rng: torch.Generator
    ) -> torch.Tensor:
        """Outputs under one draw of all gains a sample."""
        noise = torch.randn(n_samples, len(self.start), generator=rng, dtype=self.start.dtype)
        gains, _ = self.gains_and_kl(noise.to(self.start.device))
        return sample_outputs(self._run, inputs, gains, self.n_activations)

    def _run(self, inputs: torch.Tensor, gains: torch.Tensor) -> torch.Tensor:
        return run(self.network, self.layers, gains.split_with_sizes(self.sizes), inputs)
