"""Sparse variational dropout: a dropout rate for each weight; those at the limit are pruned."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import nn

from bhnbench.contract import Problem
from bhnbench.space import Choice, Float, hyperparameter
from bhnbench_methods.divergences import MAX_LOG_ALPHA
from bhnbench_methods.fitting import TrainedMethod
from bhnbench_methods.gaussian_weights import GaussianModel
from bhnbench_methods.layers import wrap
from bhnbench_methods.models import Model
from bhnbench_methods.predictive import repeat_outputs
from bhnbench_methods.schedules import constant, linear_decay, warm_up
from bhnbench_methods.sparse_layer import SparseLayer
from bhnbench_methods.training import Recipe


@dataclass(frozen=True, kw_only=True)
class SparseVariationalDropout(TrainedMethod):
    """Variational dropout without a bound on the rates: most weights turn out to be noise.

    Use it to compress a network: of one for MNIST, more than nine weights in ten turn out to be
    needless. Twice the parameters and about three times the time of one network in training; in
    prediction it is one network with zeros. Weights are ``w ~ N(theta, exp(log_variance))``
    under a log-uniform prior, with ``log alpha = log_variance - log theta^2`` clipped to [-8,
    8]:

        -1/N sum_i E[log p(y_i | x_i, w)] + 1/N sum_weights KL(alpha)
        KL(alpha) = k1 (1 - sigmoid(k2 + k3 log alpha)) + log(1 + 1/alpha) / 2

    with k1 = 0.63576, k2 = 1.87320 and k3 = 1.48695, which is within 0.01 nat of the exact value.
    In training each pre-activation has noise of its own (local reparameterisation), unless the
    network calls the layer twice. Weights with ``log alpha >= threshold`` are pruned; biases
    are point estimates. ``prediction: mean`` uses the means of the others, as the paper does,
    and all samples are equal; ``sample`` draws the others from the posterior.

    The predictive has ``sparsity()``, the fraction of zeros of each layer; ``compression()``,
    weights over weights that are not zero; and ``pruned()``, the network as a plain module. The
    reports have ``sparsity`` and ``compression`` of all layers together.

    It returns the last epoch, not the best on validation data: weights are pruned throughout the
    fit, and an early epoch may predict a little better but has not been compressed yet. The KL
    comes in between 5/200 and 20/200 of the fit and the learning rate falls to zero in the
    second half, both as in the paper; plan for 100 epochs or more. Where examples are few for
    the number of weights, or labels are random, nearly everything is pruned.

    Departures: the network's own initialisation; the means of pruned weights go on in training.

    Source: Molchanov, Ashukha and Vetrov (2017), "Variational dropout sparsifies deep neural
    networks", sections 4.2-4.4, equations 11-14, https://arxiv.org/abs/1701.05369.
    """

    initial_log_variance: float = hyperparameter(
        -10.0,
        "log variance of every weight at the start",
        valid=Float(-30, 0),
        search=Float(-12, -6),
    )
    threshold: float = hyperparameter(
        3.0, "log alpha from which a weight is pruned", valid=Float(-MAX_LOG_ALPHA, MAX_LOG_ALPHA)
    )
    prediction: str = hyperparameter(
        "mean",
        "weights left after pruning: their means, or drawn once a posterior sample",
        valid=Choice("mean", "sample"),
    )
    kl_warm_up: bool = hyperparameter(
        True,
        "let the weight of the KL rise from 0 to 1 between 5/200 and 20/200 of the fit",
    )
    lr_decay: bool = hyperparameter(
        True, "lower the learning rate linearly to zero over the second half of the fit"
    )

    def make_model(self, problem: Problem) -> Model:
        """The network with a variance for each weight."""
        return _SparseModel(problem, self)

    def recipe(self) -> Recipe:
        """The last epoch."""
        return replace(
            super().recipe(),
            lr_schedule=linear_decay if self.lr_decay else constant,
            kl_schedule=warm_up(5 / 200, 20 / 200) if self.kl_warm_up else constant,
            reports_kl=True,
            n_validation_samples=1 if self.prediction == "mean" else 10,
            keep_best=False,
        )


class _SparseModel(GaussianModel[SparseLayer]):
    def __init__(self, problem: Problem, method: SparseVariationalDropout) -> None:
        settings = (method.initial_log_variance, method.threshold)
        super().__init__(problem, lambda layer: SparseLayer(layer, *settings))
        self.prediction = method.prediction

    @property
    def is_random(self) -> bool:
        """Whether it draws the weights that are left."""
        return self.prediction == "sample"

    def figures(self) -> dict[str, float]:
        """Fraction of all weights that are pruned, and compression."""
        n_kept, n_weights = self._count()
        return {"sparsity": 1 - n_kept / n_weights, "compression": self.compression()}

    def sample(
        self, inputs: torch.Tensor, n_samples: int, *, rng: torch.Generator
    ) -> torch.Tensor:
        """Outputs of the pruned network, or under one draw a sample of the weights left."""
        if self.is_random:
            return super().sample(inputs, n_samples, rng=rng)
        means = torch.cat([layer.sampled_moments()[0] for layer in self.layers])
        return repeat_outputs(
            lambda x: self.run_with(x, means), inputs, n_samples, n_activations=self.n_activations
        )

    def sparsity(self) -> dict[str, float]:
        """Fraction of zero weights in each layer, by its name in the network."""
        names = [site.name for site in self.sites]
        fractions = [1 - layer.kept().float().mean().item() for layer in self.layers]
        return dict(zip(names, fractions, strict=True))

    def compression(self) -> float:
        """Weights over weights that are not zero; of an empty network, the number of weights."""
        n_kept, n_weights = self._count()
        return n_weights / max(n_kept, 1)

    def _count(self) -> tuple[int, int]:
        """Weights that are not zero, and all weights."""
        kept = [layer.kept() for layer in self.layers]
        return sum(int(mask.sum()) for mask in kept), sum(mask.numel() for mask in kept)

    def pruned(self) -> nn.Module:
        """A plain network, as the problem's own, with pruned weights zero and means elsewhere."""
        network = deepcopy(self.network)
        return wrap(network, self.sites, lambda layer: cast("SparseLayer", layer).pruned())[0]
