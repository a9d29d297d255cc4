"""KL divergences of Gaussian weights to their priors, summed, in nats.

They are written as ``autograd`` functions where a network of a million weights would spend as
much time on its KL as on its products: with few temporaries, and variances made on the way. A
small network spends more time on calling such a function, above all within ``vmap``.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

K1, K2, K3 = 0.63576, 1.87320, 1.48695  # Molchanov et al. (2017), equation 14
C1, C2, C3 = 1.16145124, -1.50204118, 0.58629921  # Kingma et al. (2015), equation 12
MAX_LOG_ALPHA = 8.0
MAX_PLAIN = 2**13  # numbers in a tensor; of more, the temporaries of autograd cost more than calls
_TINY = 1e-30  # added to a divisor whose dividend is zero where it is
_LOG2_E = 1 / math.log(2)

Terms = tuple[torch.Tensor, torch.Tensor]  # variances, KL
Context = Any  # of a function: torch's class has no types for what is kept on it


def gaussian_kl(mean: torch.Tensor, log_variance: torch.Tensor, prior_sd: float | None) -> Terms:
    """Variances of ``N(mean, exp(log_variance))``, and the KL to ``N(0, prior_sd^2)``.

    Without a ``prior_sd``, the one at which the KL is smallest: the root of
    ``mean(mean^2 + variance)``.
    """
    if mean.numel() <= MAX_PLAIN:
        return _GaussianKL.forward(mean, log_variance, prior_sd)
    # torch gives `apply` no types
    terms: Terms = _GaussianKL.apply(mean, log_variance, prior_sd)  # type: ignore[no-untyped-call]
    return terms


def gaussian_kl_between(
    mean: torch.Tensor,
    log_variance: torch.Tensor,
    prior_mean: torch.Tensor,
    prior_log_variance: torch.Tensor,
) -> Terms:
    """Variances of ``N(mean, exp(log_variance))``, and the KL to another such Gaussian."""
    variance = _exp(log_variance)
    squares = (mean - prior_mean).square() + variance
    terms = squares * _exp(-prior_log_variance) + prior_log_variance - log_variance
    return variance, 0.5 * (terms.sum() - mean.numel())


def best_prior_sd(mean: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    """The standard deviation of the centred prior to which the KL is smallest."""
    return ((_squared_norm(mean) + variance.sum()) / mean.numel()).sqrt()


def _squared_norm(tensor: torch.Tensor) -> torch.Tensor:
    flat = tensor.flatten()
    return flat.dot(flat)  # no temporary


class _GaussianKL(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(mean: torch.Tensor, log_variance: torch.Tensor, prior_sd: float | None) -> Terms:
        variance, n = _exp(log_variance), mean.numel()
        second_moments = _squared_norm(mean) + variance.sum()
        if prior_sd is None:
            return variance, 0.5 * (n * (second_moments / n).log() - log_variance.sum())
        constant = n * (2 * math.log(prior_sd) - 1)
        return variance, 0.5 * (second_moments / prior_sd**2 - log_variance.sum() + constant)

    @staticmethod
    def setup_context(ctx: Context, inputs: tuple[Any, ...], output: Terms) -> None:
        mean, _, ctx.prior_sd = inputs
        ctx.save_for_backward(mean, output[0])

    @staticmethod
    def backward(
        ctx: Context,
        of_variance: torch.Tensor,
        of_kl: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, None]:
        mean, variance = ctx.saved_tensors
        # At the best prior its own gradient is zero, so that it counts as constant.
        best = best_prior_sd(mean, variance) if ctx.prior_sd is None else ctx.prior_sd
        precision = of_kl / best**2
        of_log_variance = (of_variance + 0.5 * precision).mul_(variance).sub_(0.5 * of_kl)
        return precision * mean, of_log_variance, None


def dropout_kl(log_alpha: torch.Tensor) -> torch.Tensor:
    """KL of ``N(theta, alpha theta^2)`` to the log-uniform prior, for alpha up to one.

    A cubic in alpha, within 0.04 nat of the exact value. The prior is improper and so the KL's
    constant is arbitrary: here it is that of ``log_uniform_kl``.
    """
    alpha = log_alpha.exp()
    cubic = alpha * (C1 + alpha * (C2 + alpha * C3))
    return (K1 - 0.5 * log_alpha - cubic).sum()


def log_uniform_kl(log_alpha: torch.Tensor) -> torch.Tensor:
    """KL of ``N(theta, alpha theta^2)`` to the log-uniform prior, for any alpha.

    Zero at infinite alpha; within 0.01 nat of the exact value.
    """
    bend = torch.sigmoid(K2 + K3 * log_alpha)
    return (K1 * (1 - bend) + 0.5 * F.softplus(-log_alpha)).sum()


def additive_log_uniform_kl(
    theta: torch.Tensor, log_variance: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Variances, KL and log alpha of ``N(theta, exp(log_variance))``.

    ``log alpha = log_variance - log theta^2`` is clipped to [-8, 8], and the variance with it.
    The KL is the one of ``log_uniform_kl``.
    """
    # torch gives `apply` no types
    outputs = _LogUniformKL.apply(theta, log_variance)  # type: ignore[no-untyped-call]
    variance, kl, log_alpha, _ = outputs
    return variance, kl, log_alpha


class _LogUniformKL(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        theta: torch.Tensor, log_variance: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        log_alpha = theta.square().log_().sub_(log_variance)
        log_alpha = log_alpha.clamp(-MAX_LOG_ALPHA, MAX_LOG_ALPHA).neg_()
        alpha = _exp(log_alpha)
        bend = (K3 * log_alpha).add_(K2).sigmoid_()
        kl = K1 * (theta.numel() - bend.sum())
        slope = bend.square().sub_(bend).mul_(K1 * K3)
        # From here on, bend is scratch paper.
        kl = kl + 0.5 * bend.copy_(alpha).reciprocal_().log1p_().sum()
        slope.sub_(bend.copy_(alpha).add_(1).reciprocal_(), alpha=0.5)
        return alpha.mul_(theta).mul_(theta), kl, log_alpha, slope

    @staticmethod
    def setup_context(
        ctx: Context, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]
    ) -> None:
        variance, _, log_alpha, slope = output
        ctx.mark_non_differentiable(log_alpha, slope)
        ctx.save_for_backward(inputs[0], variance, log_alpha, slope)
        ctx.set_materialize_grads(False)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Context,
        of_variance: torch.Tensor | None,
        of_kl: torch.Tensor | None,
        *_: None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        theta, variance, log_alpha, slope = ctx.saved_tensors
        free = log_alpha.abs().sub_(MAX_LOG_ALPHA).sign_().neg_()  # 0 where it is clipped, else 1
        of_theta = variance * (0.0 if of_variance is None else of_variance)
        of_log_variance = slope * (0.0 if of_kl is None else of_kl)
        of_log_variance.add_(of_theta).mul_(free)
        # Where log alpha is clipped, theta moves the variance; elsewhere, only the KL.
        of_theta.sub_(of_log_variance).mul_(2).div_(theta + _TINY)
        return of_theta, of_log_variance


def _exp(exponent: torch.Tensor) -> torch.Tensor:
    return (exponent * _LOG2_E).exp2_()  # in a third of the time of exp
