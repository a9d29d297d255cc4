"""Bayesian hypernetwork: an invertible flow makes the gains, or the weights, of a network."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from bhnbench.contract import Problem
from bhnbench.errors import UnsupportedError
from bhnbench.space import Choice, Float, Int, hyperparameter
from bhnbench_methods.data_init import standardise
from bhnbench_methods.flows import FLOWS, make_flow
from bhnbench_methods.models import Forward, Model, RandomModel, new_network
from bhnbench_methods.predictive import Draw, normals
from bhnbench_methods.schedules import constant, cool_down, product
from bhnbench_methods.targets import TARGETS
from bhnbench_methods.training import Recipe
from bhnbench_methods.variational_method import VariationalMethod


@dataclass(frozen=True, kw_only=True)
class BayesianHypernet(VariationalMethod):
    """A posterior over the gain of every unit, as expressive as the flow that makes it.

    Use it for a posterior with dependence between layers and several modes, at two to three times
    the training of one wide network. With ``target: gains``, unit ``j`` has weights ``g_j v_j /
    |v_j|``; only the gains are random, ``g = h(eps)`` with ``eps ~ N(0, I)``, and one flow makes
    the gains of all layers together. Directions ``v`` and biases are point estimates. With
    ``target: weights`` the flow makes every parameter of a network of at most 10 000, which is
    then wholly Bayesian. It minimises, with one ``eps`` a minibatch,

        -1/N sum_i log p(y_i | x_i, g) + KL / N
        KL = E[log N(eps) - log |det dh/deps| - log N(g; prior mean, 1/prior_precision)]

    ``flow`` is ``affine`` (a factorised Gaussian: Bayes by backprop on the gains), ``realnvp``,
    ``iaf`` (twice the cost of a block) or ``spline`` (several times; for small targets); the
    last three put ``n_coupling_layers`` blocks of ``width`` hidden units before the affine map.
    The flow's output is added to the network's own initial values and starts at zero with
    standard deviation ``initial_sd``. A flow falls into one of several modes unless it starts as
    wide as the prior (``initial_sd: 1``) and has the time to divide while the likelihood is weak
    (``likelihood_annealing``) and gradients are calm (``n_draws: 32``).

    Departures: the paper's prior on gains is centred at zero (``prior_mean: zero``), where all
    outputs are constant and no direction gets a gradient; with few labels its pull is stronger
    than the data's and the network collapses. So gains have a prior centred at their initial
    values, which are drawn before any data are seen, unless ``data_init`` rescales them by 64
    training inputs; weights keep the paper's. The paper's
    ``initial_sd`` of 0.002 needs some 6 000 steps to widen; the default can widen in some
    hundred. The affine map comes last instead of first, so that blocks work on the scale of the
    noise; each block swaps the halves instead of a random permutation; log-scales go through
    tanh; a block's matrices have gains that start near zero but are not normalised; predicted
    probabilities are not clipped to [0.001, 0.999].

    The fit returns the epoch of the highest validation log-likelihood; gradients of a norm above
    10 are clipped.

    Source: Krueger, Huang, Islam, Turner, Lacoste and Courville (2017), "Bayesian
    hypernetworks", sections 3-4, https://arxiv.org/abs/1710.04759.
    """

    target: str = hyperparameter(
        "gains", "what is random: the gains of all units, or all weights", valid=Choice(*TARGETS)
    )
    flow: str = hyperparameter("realnvp", "family of the posterior", valid=Choice(*FLOWS))
    n_coupling_layers: int = hyperparameter(
        4, "blocks of the flow; without effect on affine", valid=Int(0, 16), search=Int(0, 12)
    )
    width: int = hyperparameter(200, "hidden units of each block", valid=Int(1, 10_000))
    prior_precision: float = hyperparameter(
        1.0,
        "inverse variance of the Gaussian prior",
        valid=Float(1e-6, 1e6),
        search=Float(0.1, 10, log=True),
    )
    prior_mean: str = hyperparameter(
        "auto",
        "centre of the prior: the initial values, or zero; auto: initial for gains, zero for "
        "weights",
        valid=Choice("auto", "initial", "zero"),
    )
    initial_sd: float = hyperparameter(
        0.1,
        "standard deviation of what is random at the start",
        valid=Float(0.0011, 10),
        search=Float(0.01, 0.5, log=True),
    )
    likelihood_annealing: bool = hyperparameter(
        False,
        "let the weight of the likelihood rise from 0.01 to 1 in the first four fifths of the "
        "fit, of which no epoch is kept: for posteriors of several modes",
    )
    n_draws: int = hyperparameter(
        1,
        "draws of the noise in a training step; more give calmer gradients, at their cost",
        valid=Int(1, 1000),
    )
    data_init: bool = hyperparameter(
        False, "start with standardised pre-activations on 64 training examples"
    )

    def make_model(self, problem: Problem) -> Model:
        """The network, and the flow that makes its gains or weights."""
        return _HypernetModel(problem, self)

    def recipe(self) -> Recipe:
        """The KL may also start above its weight, which anneals the likelihood."""
        recipe = super().recipe()
        fall = cool_down(100, 0.8) if self.likelihood_annealing else constant
        return replace(recipe, kl_schedule=product(recipe.kl_schedule, fall))


class _HypernetModel(RandomModel):
    def __init__(self, problem: Problem, method: BayesianHypernet) -> None:
        super().__init__()
        network, inputs = new_network(problem), problem.train.inputs[:64]
        if method.data_init:
            standardise(network, inputs)
        self.target = TARGETS[method.target](network, inputs[:2])
        self.n_random, self.n_activations = self.target.n_dims, self.target.n_activations
        if self.target.n_dims == 1 and method.flow != "affine" and method.n_coupling_layers:
            raise UnsupportedError(
                f"flow {method.flow} needs two {method.target} or more, but the network has one"
            )
        self.n_draws, self.prior_precision = method.n_draws, method.prior_precision
        centred = method.prior_mean == "initial"
        self.prior_is_centred = centred or (method.prior_mean, method.target) == ("auto", "gains")
        # What the flow makes is added to the start: its map begins at zero, like its prior.
        shape = (self.target.n_dims, method.n_coupling_layers, method.width)
        self.flow = make_flow(method.flow, *shape, method.initial_sd).to(self.target.start)

    def draw_noise(self, inputs: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        """Standard normals, ``(d,)`` or ``(n_draws, d)``, the same for all examples."""
        start = self.target.start
        shape = start.shape if self.n_draws == 1 else (self.n_draws, *start.shape)
        return start.new_empty(shape).normal_(generator=rng)

    def forward(self, inputs: torch.Tensor, noise: torch.Tensor) -> Forward:
        """Outputs of each draw, and the KL's Monte-Carlo estimate ``log q - log p``."""
        values, kl = self.values_and_kl(noise)
        if noise.ndim == 1:
            return self.target.run(inputs, values), kl
        return self.target.run_many(inputs, values), kl.mean()

    def values_and_kl(self, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Values ``(..., d)`` and ``log N(eps) - log_det - log N(values; mean, 1/precision)``."""
        shift, log_det = self.flow(noise)
        values = self.target.start + shift
        from_mean = shift if self.prior_is_centred else values
        squares = self.prior_precision * from_mean.square().sum(-1) - noise.square().sum(-1)
        log_scale = self.target.n_dims * math.log(self.prior_precision)
        return values, 0.5 * (squares - log_scale) - log_det  # the 2 pi cancel

    def drawer(self, rng: torch.Generator) -> Draw[torch.Tensor]:
        """One draw of all gains or weights a sample."""
        start = self.target.start
        return lambda n: self.values_and_kl(normals(n, len(start), rng, like=start))[0]

    def run_with(self, inputs: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Outputs given all gains or weights."""
        return self.target.run(inputs, values)
