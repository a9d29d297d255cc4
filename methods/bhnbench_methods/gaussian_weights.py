"""Networks with factorised Gaussian weights: what Bayes by backprop and its relatives share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Generic, NamedTuple, TypeVar, cast

import torch
from torch import nn

from bhnbench.contract import Problem
from bhnbench_methods.layers import (
    Site,
    Trace,
    apply_layer,
    check_plain,
    run,
    trace_replaceable,
    wrap,
)
from bhnbench_methods.models import Forward, RandomModel, new_network
from bhnbench_methods.predictive import Draw, normals

_MIN_VARIANCE = 1e-12  # of a pre-activation: the root has no derivative at zero


class Posterior(NamedTuple):
    """What is random in a layer, and its KL to the prior in nats."""

    weight_variance: torch.Tensor
    bias_variance: torch.Tensor | None  # None: the biases are point estimates
    kl: torch.Tensor


@dataclass(frozen=True)
class Drawn:
    """One draw of a layer's weights, the same for all examples."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    def __call__(self, layer: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
        """The layer with them instead of its own."""
        return apply_layer(layer, inputs, self.weight, self.bias)


@dataclass(frozen=True)
class Perturbed:
    """Random pre-activations instead of weights: local reparameterisation.

    Every pre-activation has the mean and variance that random weights give it. Those of one
    example that share weights, the positions of a convolution, should be correlated and are not.
    """

    weight: torch.Tensor
    weight_variance: torch.Tensor
    bias: torch.Tensor | None
    bias_variance: torch.Tensor | None
    noise: torch.Tensor  # a standard normal for each

    def __call__(self, layer: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
        """The layer's outputs with noise of their standard deviation."""
        mean = apply_layer(layer, inputs, self.weight, self.bias)
        variances = (self.weight_variance, self.bias_variance)
        sd = apply_layer(layer, inputs.square(), *variances).add_(_MIN_VARIANCE).sqrt_()
        return torch.addcmul(mean, sd, self.noise.view_as(mean))


class RandomLayer(nn.Module):
    """A Linear or Conv layer with random weights around its own.

    ``given`` is what stands in for the random weights; without it, the layer is the plain one.
    It has no ``weight``: a network that reads one instead of calling the layer must fail, not get
    the mean.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        bias = cast("torch.Tensor | None", layer.bias)
        self.has_random_bias = bias is not None and bias.requires_grad  # what is frozen is known
        self.given: Callable[[nn.Module, torch.Tensor], torch.Tensor] | None = None

    @property
    def mean(self) -> torch.Tensor:
        """Of the weights."""
        return cast("torch.Tensor", self.layer.weight)

    @property
    def bias_mean(self) -> torch.Tensor | None:
        """Of the biases, or the biases themselves."""
        return cast("torch.Tensor | None", self.layer.bias)

    @property
    def random_bias_mean(self) -> torch.Tensor | None:
        """Of the biases, if there are any that are random."""
        return self.bias_mean if self.has_random_bias else None

    def with_weights(self, weights: torch.Tensor) -> Drawn:
        """Of the random weights, and perhaps biases, ``(n_random,)``."""
        n_weights = self.mean.numel()
        bias = self.bias_mean if len(weights) == n_weights else weights[n_weights:]
        return Drawn(weights[:n_weights].view_as(self.mean), bias)

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - as torch calls it
        """``layer(input)``, or what stands in for it."""
        outputs: torch.Tensor = (
            self.layer(input) if self.given is None else self.given(self.layer, input)
        )
        return outputs


class GaussianLayer(RandomLayer, ABC):
    """A layer whose weights are independent Gaussians around its own."""

    @abstractmethod
    def posterior(self) -> Posterior:
        """Variances, and the KL."""

    def perturbed(self, noise: torch.Tensor) -> tuple[Perturbed, torch.Tensor]:
        """Pre-activations perturbed by standard normals, and the KL."""
        weight_variance, bias_variance, kl = self.posterior()
        given = Perturbed(self.mean, weight_variance, self.bias_mean, bias_variance, noise)
        return given, kl

    def drawn(self, noise: torch.Tensor) -> tuple[Drawn, torch.Tensor]:
        """Weights made of standard normals, ``(n_random,)``, and the KL."""
        posterior = self.posterior()
        mean, variance = self.moments(posterior)
        return self.with_weights(torch.addcmul(mean, variance.sqrt(), noise)), posterior.kl

    def moments(self, posterior: Posterior) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and variance of what is random, ``(n_random,)`` each."""
        means, variances = [self.mean.flatten()], [posterior.weight_variance.flatten()]
        if self.bias_mean is not None and posterior.bias_variance is not None:
            means.append(self.bias_mean)
            variances.append(posterior.bias_variance)
        return torch.cat(means), torch.cat(variances)

    def sampled_moments(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The same, of what a posterior sample draws from: training may draw from more."""
        return self.moments(self.posterior())


R = TypeVar("R", bound=RandomLayer)
L = TypeVar("L", bound=GaussianLayer)


def make_random(
    problem: Problem, wrapper: Callable[[nn.Module], R]
) -> tuple[nn.Module, list[R], Trace]:
    """The problem's network with a random layer for every Linear and Conv layer to train.

    Returns:
        The network, its random layers, and where they are.

    Raises:
        UnsupportedError: it has no such layer, two share their weights, or these are computed.
    """
    network = new_network(problem)
    found = trace_replaceable(network, problem.train.inputs[:2])
    check_plain(network, [site.name for site in found.sites])
    return *wrap(network, found.sites, wrapper), found


def can_be_local(site: Site) -> bool:
    """Whether pre-activations of a layer may be drawn instead of its weights.

    Not where a pass calls it twice, for one draw of the weights makes the outputs of both calls
    depend on each other; nor where a row is no example.
    """
    return site.is_regular and site.n_calls == 1


class GaussianModel(RandomModel, Generic[L]):
    """A network with Gaussian weights in every Linear and Conv layer that is not frozen.

    In training, ``local`` perturbs each pre-activation of each example on its own, which makes
    the gradient less noisy than one draw of the weights for the minibatch; the latter remains for
    a layer that a pass calls twice. A posterior sample is always a draw of the weights.
    """

    def __init__(
        self,
        problem: Problem,
        wrapper: Callable[[nn.Module], L],
        *,
        local: bool = True,
    ) -> None:
        super().__init__()
        self.network, self.layers, found = make_random(problem, wrapper)
        self.sites = found.sites
        self.local = [local and can_be_local(site) for site in found.sites]
        self.n_units = [prod(site.output_shape) for site in found.sites]
        self.sizes = [len(layer.moments(layer.posterior())[0]) for layer in self.layers]
        self.n_random = sum(self.sizes)
        self.n_activations = found.n_activations

    def draw_noise(self, inputs: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        """Standard normals, one layer after the other."""
        n = sum(self._noise_sizes(inputs))
        return self.layers[0].mean.new_empty(n).normal_(generator=rng)

    def forward(self, inputs: torch.Tensor, noise: torch.Tensor) -> Forward:
        """Outputs under perturbed pre-activations or drawn weights, and the KL."""
        pieces = noise.split_with_sizes(self._noise_sizes(inputs))
        pairs = [
            layer.perturbed(piece) if local else layer.drawn(piece)
            for layer, local, piece in zip(self.layers, self.local, pieces, strict=True)
        ]
        given, kls = zip(*pairs, strict=True)
        return run(self.network, self.layers, given, inputs), torch.stack(kls).sum()

    def _noise_sizes(self, inputs: torch.Tensor) -> list[int]:
        """Of each layer: its pre-activations on ``inputs``, or its random weights."""
        triples = zip(self.local, self.n_units, self.sizes, strict=True)
        return [len(inputs) * k if local else n for local, k, n in triples]

    def drawer(self, rng: torch.Generator) -> Draw[torch.Tensor]:
        """One draw of all weights a sample."""
        moments = [layer.sampled_moments() for layer in self.layers]
        means, variances = (torch.cat(parts) for parts in zip(*moments, strict=True))
        sds = variances.sqrt()
        return lambda n: torch.addcmul(means, sds, normals(n, len(means), rng, like=means))

    def run_with(self, inputs: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Outputs given all that is random, ``(n_random,)``."""
        pieces = values.split_with_sizes(self.sizes)
        given = [layer.with_weights(w) for layer, w in zip(self.layers, pieces, strict=True)]
        return run(self.network, self.layers, given, inputs)
