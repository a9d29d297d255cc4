"""Multiplicative normalizing flow: Gaussian weights whose means a flow multiplies."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import nn
from torch.func import vmap

from bhnbench.contract import Problem
from bhnbench.space import Float, Int, hyperparameter
from bhnbench_methods.gaussian_weights import can_be_local, make_random
from bhnbench_methods.layers import run
from bhnbench_methods.models import Forward, Model, RandomModel
from bhnbench_methods.multiplicative_layer import MultiplicativeLayer
from bhnbench_methods.predictive import Draw, normals
from bhnbench_methods.variational_method import VariationalMethod


@dataclass(frozen=True, kw_only=True)
class MultiplicativeNormalizingFlow(VariationalMethod):
    """A posterior over all weights in which those of one input, or filter, depend on each other.

    Use it where Bayes by backprop's independent weights are too poor, at three to four times the
    time of one wide network, more of a small one, and twice its parameters. Each layer has a
    random vector z, one number for each input of a Linear layer and each filter of a Conv layer,
    made by a flow: ``z = 1 + h(eps)``, ``eps ~ N(0, I)``. Given z, weights are ``w_ij ~ N(z_i
    mu_ij, sd_ij^2)``, and biases ``N(mu_j, sd_j^2)``. It minimises, with one z a minibatch and the
    pre-activations of each example drawn on their own (local reparameterisation; weights, where
    the network calls a layer twice),

        -1/N sum_i E[log p(y_i | x_i, w)] + KL / N
        KL <= E[KL(q(w | z) || p(w)) + log q(z) - log r(z | w)]

    The prior is ``N(0, prior_sd^2)`` for each weight and bias. ``q(w)`` is an integral over z, so
    its KL is only bounded. The auxiliary model ``r(z | w)`` is a flow of its own to a Gaussian,
    whose mean and log standard deviation are linear in the mean of ``tanh(w c)``, c learned; the
    closer r is to ``q(z | w)``, the tighter the bound; z must be read from the weights, so that in
    a layer of one or two outputs the bound is loose, and Bayes by backprop better. A posterior
    sample is one z and one draw of
    all weights.

    As for Bayes by backprop, the KL of a wide network on few data is far from its optimum when
    validation is at its best: means learn at once, while the log standard deviations climb by at
    most the learning rate a step; more noise than the best comes late, and the best epoch is kept.

    Departures: the flows are RealNVP coupling layers of ``bayesian_hypernet``, each with a fixed
    random half of z (the authors mask another half at every call: also a bound, a looser one) and
    an unbounded scale (theirs only shrinks z). z starts around one, with the authors' variance of
    0.1, instead of zero; r starts as the density of z. The authors draw one z for each example and
    another for the KL; here all share one. Their code bounds standard deviations in the
    likelihood but not in the KL (``thres_var`` of 0.3 to 0.5); ``max_sd`` bounds them in both, and
    smoothly: with an ``initial_sd`` near it they start below that, at the bound over the root of
    two if both are equal. An input layer of a single number has no coupling layers.

    Source: Louizos and Welling (2017), "Multiplicative normalizing flows for variational Bayesian
    neural networks", sections 2.2-2.4, https://arxiv.org/abs/1703.01961.
    """

    n_flows: int = hyperparameter(
        2, "coupling layers for z, and as many in the auxiliary model", valid=Int(0, 16)
    )
    width: int = hyperparameter(
        50, "hidden units of each coupling layer", valid=Int(1, 10_000), search=Int(10, 200)
    )
    prior_sd: float = hyperparameter(
        1.0,
        "standard deviation of the prior",
        valid=Float(1e-6, 1e6),
        search=Float(0.1, 10, log=True),
    )
    initial_sd: float = hyperparameter(
        0.01,
        "standard deviation of weights and biases given z, at the start",
        valid=Float(1e-6, 1e3),
        search=Float(0.001, 0.1, log=True),
    )
    max_sd: float | None = hyperparameter(
        None,
        "smooth upper bound on the standard deviations of weights and biases given z",
        valid=Float(1e-6, 1e3),
    )

    def make_model(self, problem: Problem) -> Model:
        """The network with random weights, and a flow for each layer."""
        return _MultiplicativeModel(problem, self)


class _MultiplicativeModel(RandomModel):
    def __init__(self, problem: Problem, method: MultiplicativeNormalizingFlow) -> None:
        super().__init__()

        def wrapper(layer: nn.Module) -> MultiplicativeLayer:
            return MultiplicativeLayer(
                layer,
                n_flows=method.n_flows,
                width=method.width,
                prior_sd=method.prior_sd,
                initial_sd=method.initial_sd,
                max_sd=method.max_sd,
            )

        self.network, self.layers, found = make_random(problem, wrapper)
        self.local = [can_be_local(site) for site in found.sites]
        self.n_units = [prod(site.output_shape) for site in found.sites]
        self.n_weights = [layer.n_weights for layer in self.layers]
        self.n_random = sum(layer.n_z + layer.n_weights for layer in self.layers)
        self.n_activations = found.n_activations

    def draw_noise(self, inputs: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        """Standard normals, one layer after the other."""
        return self.layers[0].mean.new_empty(sum(self._sizes(inputs))).normal_(generator=rng)

    def forward(self, inputs: torch.Tensor, noise: torch.Tensor) -> Forward:
        """Outputs under one z and random pre-activations, and the bound on the KL."""
        pieces = noise.split_with_sizes(self._sizes(inputs))
        thirds = (pieces[i::3] for i in range(3))
        rows = zip(self.layers, *thirds, self.local, strict=True)
        pairs = [layer.multiplied(*args) for layer, *args in rows]
        given, kls = zip(*pairs, strict=True)
        return run(self.network, self.layers, given, inputs), torch.stack(kls).sum()

    def _sizes(self, inputs: torch.Tensor) -> list[int]:
        """Of the noise of each layer: of z, its auxiliary model, pre-activations or weights."""
        triples = zip(self.layers, self.local, self.n_units, strict=True)
        last = [k * len(inputs) if local else layer.n_weights for layer, local, k in triples]
        pairs = zip(self.layers, last, strict=True)
        return [size for layer, n in pairs for size in (layer.n_z, layer.n_rest, n)]

    def drawer(self, rng: torch.Generator) -> Draw[torch.Tensor]:
        """One draw of z and of all weights a sample."""
        sizes = [layer.n_z + layer.n_weights for layer in self.layers]

        def draw(n: int) -> torch.Tensor:
            noise = normals(n, sum(sizes), rng, like=self.layers[0].mean)
            pieces = zip(self.layers, noise.split_with_sizes(sizes, dim=1), strict=True)
            return torch.cat([vmap(layer.draw)(piece) for layer, piece in pieces], dim=1)

        return draw

    def run_with(self, inputs: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Outputs given the weights and biases of all layers."""
        pieces = values.split_with_sizes(self.n_weights)
        given = [layer.with_weights(w) for layer, w in zip(self.layers, pieces, strict=True)]
        return run(self.network, self.layers, given, inputs)
