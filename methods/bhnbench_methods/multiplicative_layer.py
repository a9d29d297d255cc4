"""The layer of multiplicative normalizing flows: Gaussian weights whose means share a random z."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from bhnbench_methods.divergences import gaussian_kl
from bhnbench_methods.flows import make_flow
from bhnbench_methods.gaussian_weights import Drawn, Perturbed, RandomLayer

_Z_SD = math.sqrt(0.1)  # of z around one at the start; the variance is the authors'


class Conditional(NamedTuple):
    """A layer's Gaussian weights, and biases if it has some, given z; frozen ones are known."""

    weight: torch.Tensor
    weight_variance: torch.Tensor
    bias: torch.Tensor | None
    bias_variance: torch.Tensor | None
    kl: torch.Tensor  # KL(q(w | z) || p(w)), nats


class MultiplicativeLayer(RandomLayer):
    """A layer with weights ``w_ij ~ N(z_i mu_ij, sd_ij^2)`` and biases ``N(mu_j, sd_j^2)``.

    There is one z for each input of a Linear layer, and for each filter of a Conv layer. The
    layer's own parameters are the means mu. What is called ``offset`` below is z - 1.
    """

    def __init__(
        self,
        layer: nn.Module,
        *,
        n_flows: int,
        width: int,
        prior_sd: float,
        initial_sd: float,
        max_sd: float | None,
    ) -> None:
        super().__init__(layer)
        self.prior_sd, self.max_sd = prior_sd, max_sd
        start = 2 * math.log(initial_sd)
        self.raw_log_variance = nn.Parameter(torch.full_like(self.mean, start))
        if self.random_bias_mean is not None:
            self.raw_bias_log_variance = nn.Parameter(
                torch.full_like(self.random_bias_mean, start)
            )
        self.n_rest, self.n_z = self._by_z(self.mean).shape
        n_blocks = n_flows if self.n_z > 1 else 0  # a coupling block needs two halves
        self.flow = make_flow("realnvp", self.n_z, n_blocks, width, _Z_SD).to(self.mean)
        # The auxiliary model starts close to the density of z, so that the bound starts tight.
        auxiliary_flow = make_flow("realnvp", self.n_z, n_blocks, width, 1 / _Z_SD)
        self.auxiliary_flow = auxiliary_flow.to(self.mean)
        self.summary = nn.Parameter(torch.randn(self.n_z).to(self.mean))
        self.slopes = nn.Parameter(torch.zeros(2, self.n_z).to(self.mean))

    @property
    def n_weights(self) -> int:
        """Weights and random biases."""
        return self.mean.numel() + (
            0 if self.random_bias_mean is None else self.random_bias_mean.numel()
        )

    def multiplied(
        self,
        z_noise: torch.Tensor,
        summary_noise: torch.Tensor,
        noise: torch.Tensor,
        local: bool = True,
    ) -> tuple[Drawn | Perturbed, torch.Tensor]:
        """Random weights or pre-activations, and an unbiased estimate of the bound on the KL.

        Args:
            z_noise: standard normals, ``(n_z,)``.
            summary_noise: the same for the auxiliary model, ``(n_rest,)``.
            noise: the same for every pre-activation or, unless ``local``, ``(n_weights,)``.
            local: whether pre-activations are drawn.
        """
        offset, log_det = self.flow(z_noise)
        given_z = self.given_z(offset)
        log_q = -0.5 * z_noise.square().sum() - log_det
        log_r = self.log_auxiliary(offset, given_z, summary_noise)
        weight, weight_variance, bias, bias_variance, kl = given_z
        kl = kl + log_q - log_r
        if local:
            return Perturbed(weight, weight_variance, bias, bias_variance, noise), kl
        return self.with_weights(self._draw_given(given_z, noise)), kl

    def given_z(self, offset: torch.Tensor) -> Conditional:
        """``q(w | z)`` for z = 1 + ``offset``, ``(n_z,)``."""
        shape = (-1,) if isinstance(self.layer, nn.Linear) else (-1, *(1,) * (self.mean.ndim - 1))
        mean = self.mean * (1 + offset).view(shape)
        variance, kl = gaussian_kl(mean, self._log_variance(self.raw_log_variance), self.prior_sd)
        if self.random_bias_mean is None:
            return Conditional(mean, variance, self.bias_mean, None, kl)
        bias_log_variance = self._log_variance(self.raw_bias_log_variance)
        bias_variance, bias_kl = gaussian_kl(
            self.random_bias_mean, bias_log_variance, self.prior_sd
        )
        return Conditional(mean, variance, self.bias_mean, bias_variance, kl + bias_kl)

    def log_auxiliary(
        self, offset: torch.Tensor, given_z: Conditional, noise: torch.Tensor
    ) -> torch.Tensor:
        """``log r(z | w)`` at one ``w ~ q(w | z)``, less ``-n_z / 2 log 2 pi`` as in log q.

        All that r sees of w is the mean of ``tanh(w c)``. As w is Gaussian, so is ``w c``, which
        is drawn itself.
        """
        mean = self._by_z(given_z.weight) @ self.summary
        variance = self._by_z(given_z.weight_variance) @ self.summary.square()
        seen = torch.addcmul(mean, variance.sqrt(), noise).tanh().mean()
        latent_mean, log_sd = self.slopes * seen
        latent, log_det = self.auxiliary_flow(offset)
        standardised = (latent - latent_mean) * (-log_sd).exp()
        log_r: torch.Tensor = log_det - (0.5 * standardised.square() + log_sd).sum()
        return log_r

    def draw(self, noise: torch.Tensor) -> torch.Tensor:
        """Weights, then biases, made of standard normals ``(n_z + n_weights,)``."""
        return self._draw_given(self.given_z(self.flow(noise[: self.n_z])[0]), noise[self.n_z :])

    def _draw_given(self, q: Conditional, noise: torch.Tensor) -> torch.Tensor:
        """Weights, then biases, made of standard normals ``(n_weights,)``."""
        pairs = ((q.weight, q.weight_variance), (q.bias, q.bias_variance))
        moments = [(m.flatten(), v.flatten()) for m, v in pairs if m is not None and v is not None]
        mean, variance = (torch.cat(parts) for parts in zip(*moments, strict=True))
        return torch.addcmul(mean, variance.sqrt(), noise)

    def _by_z(self, weight: torch.Tensor) -> torch.Tensor:
        """Weights as a matrix with one column for each z."""
        return weight if isinstance(self.layer, nn.Linear) else weight.flatten(1).mT

    def _log_variance(self, raw: torch.Tensor) -> torch.Tensor:
        """``raw`` under a smooth bound: beyond a clipped one there would be no gradient."""
        if self.max_sd is None:
            return raw
        bound = 2 * math.log(self.max_sd)
        return bound - F.softplus(bound - raw)
