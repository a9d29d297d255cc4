"""Variational dropout: multiplicative Gaussian noise on weights, its variance learned."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from bhnbench.contract import Problem
from bhnbench.space import Choice, Float, hyperparameter
from bhnbench_methods.divergences import dropout_kl
from bhnbench_methods.gaussian_weights import GaussianLayer, GaussianModel, Posterior
from bhnbench_methods.models import Model
from bhnbench_methods.variational_method import VariationalMethod


@dataclass(frozen=True, kw_only=True)
class VariationalDropout(VariationalMethod):
    """Gaussian dropout whose rates are learned: a variational posterior with a free prior.

    Use it to let the data choose how much dropout each part of a network gets, without a prior
    scale to set; about twice the time of one network, and few parameters more (unless
    ``granularity`` is ``weight``). Weights are ``w ~ N(theta, alpha theta^2)``, as under
    multiplicative noise; the prior is log-uniform, so that the KL depends on alpha alone:

        -1/N sum_i E[log p(y_i | x_i, w)] + 1/N sum_weights KL(alpha)
        KL(alpha) = constant - log(alpha) / 2 - c1 alpha - c2 alpha^2 - c3 alpha^3
        c1 = 1.16145124, c2 = -1.50204118, c3 = 0.58629921

    ``alpha = rate / (1 - rate)`` in terms of binary dropout. It stays below one, where the cubic
    is within 0.04 nat of the exact value; the KL pulls it up, towards a rate of 1/2. Biases are
    point estimates. In training each pre-activation has noise of its own (local
    reparameterisation), unless the network calls the layer twice; a posterior sample is one draw
    of all weights.

    ``granularity`` says what shares an alpha: all weights of a ``layer``; the weights that leave
    one input ``unit`` (of a convolution: one input channel of a group), as dropout has it; each
    ``weight``. Reports give the mean of each layer as ``alpha_1``, ``alpha_2``, ... in the order
    of execution.

    Departures: the noise is independent for each weight also where alpha is shared (the paper's
    type B); alpha is the sigmoid of what is learned, not clipped at one, where its gradient
    would vanish for good; the KL is not scaled down.

    The fit returns the epoch of the highest validation log-likelihood; gradients of a norm above
    10 are clipped.

    Source: Kingma, Salimans and Welling (2015), "Variational dropout and the local
    reparameterization trick", sections 2.3 and 3, https://arxiv.org/abs/1506.02557.
    """

    granularity: str = hyperparameter(
        "layer",
        "what shares an alpha: a layer, the weights of one input unit, or nothing",
        valid=Choice("layer", "unit", "weight"),
    )
    initial_alpha: float = hyperparameter(
        0.5,
        "alpha of every weight at the start",
        valid=Float(1e-8, 0.9999),
        search=Float(0.05, 0.95),
    )

    def make_model(self, problem: Problem) -> Model:
        """The network with multiplicative noise on its weights."""
        return _NoisyModel(problem, self)


class _NoisyLayer(GaussianLayer):
    def __init__(self, layer: nn.Module, granularity: str, initial_alpha: float) -> None:
        super().__init__(layer)
        ones = (1,) * (self.mean.ndim - 2)
        shapes = {"layer": (1, 1, *ones), "unit": (1, self.mean.shape[1], *ones)}
        shape = shapes.get(granularity, self.mean.shape)
        start = math.log(initial_alpha / (1 - initial_alpha))
        self.raw_alpha = nn.Parameter(self.mean.new_full(shape, start))

    def alpha(self) -> torch.Tensor:
        """Variances of the noise, below one; they broadcast to the weights."""
        return self.raw_alpha.sigmoid()

    def posterior(self) -> Posterior:
        """Of the weights; the biases are point estimates."""
        n_sharing = self.mean.numel() / self.raw_alpha.numel()
        kl = n_sharing * dropout_kl(F.logsigmoid(self.raw_alpha))
        return Posterior(self.alpha() * self.mean.square(), None, kl)


class _NoisyModel(GaussianModel[_NoisyLayer]):
    def __init__(self, problem: Problem, method: VariationalDropout) -> None:
        settings = (method.granularity, method.initial_alpha)
        super().__init__(problem, lambda layer: _NoisyLayer(layer, *settings))

    def figures(self) -> dict[str, float]:
        """Mean alpha of each layer, in the order of execution."""
        alphas = [layer.alpha().mean().item() for layer in self.layers]
        return {f"alpha_{i}": alpha for i, alpha in enumerate(alphas, start=1)}
