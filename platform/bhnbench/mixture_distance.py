"""Mean distance of two draws from a mixture of Gaussians, exact to rounding, in two ways.

All pairs of samples give it whatever they are, in a time that grows with the square of their
number. Where scales are alike, as those of posterior samples mostly are, it is a sum over few
frequencies, in a time that grows with the number of samples.
"""

from __future__ import annotations

import math

import torch

_BLOCK = 8  # samples paired with all others at once
_ELEMENTS = 2**16  # of a temporary tensor: half a MiB, so that a cache holds a few
_WORTH = 0.5  # frequencies for each sample up to which they take no longer than pairs
_REACH = 11.0  # largest scales beyond the means, at which 1e-16 of a difference is left
_LAST = 5.5  # the last frequency, times the smallest scale: 1e-13 is left, divided by its cube


def mean_distance(means: torch.Tensor, variances: torch.Tensor) -> torch.Tensor:
    """E|X - X'| of two draws from the equal mixture of each column, ``(n,)``.

    Args:
        means: of the Gaussians, ``(n_samples, n)`` float64.
        variances: of the same shape; 0 is a point mass.
    """
    n_frequencies = frequencies_needed(means, variances)
    distances = torch.empty_like(n_frequencies)
    size = max(1, _ELEMENTS // (_BLOCK * len(means)))
    for columns in torch.split(n_frequencies.argsort(), size):  # those that need as many together
        mixtures, n = (means[:, columns], variances[:, columns]), n_frequencies[columns[-1]].item()
        is_worth = n <= _WORTH * len(means)
        distances[columns] = by_frequencies(*mixtures, int(n)) if is_worth else by_pairs(*mixtures)
    return distances


def mean_abs(means: torch.Tensor, variances: torch.Tensor) -> torch.Tensor:
    """E|X| of Gaussians: 2 sd phi(mean / sd) + mean (2 Phi(mean / sd) - 1)."""
    widths = variances.mul(2).sqrt_()
    z = means / widths.clamp(min=torch.finfo(widths.dtype).tiny)
    from_means = z.erf().mul_(means)
    return from_means.addcmul_(z.square_().neg_().exp_(), widths, value=1 / math.sqrt(math.pi))


def by_pairs(means: torch.Tensor, variances: torch.Tensor) -> torch.Tensor:
    """``mean_distance`` as the mean over all pairs of samples."""
    total = means.new_zeros(means.shape[1])
    for start in range(0, len(means), _BLOCK):
        rows = slice(start, start + _BLOCK)
        distance = mean_abs(
            means[rows, None] - means[start:], variances[rows, None] + variances[start:]
        )
        n_rows = len(distance)  # pairs beyond the block stand for their mirror images too
        total += distance[:, :n_rows].sum((0, 1)) + 2 * distance[:, n_rows:].sum((0, 1))
    return total / len(means) ** 2


def by_frequencies(
    means: torch.Tensor, variances: torch.Tensor, n_frequencies: int
) -> torch.Tensor:
    """``mean_distance`` as an integral of the mixture's characteristic function phi.

    That of the difference X - X' is |phi|^2, and E|X - X'| = 2 / pi * integral over t > 0 of
    (1 - |phi(t)|^2) / t^2. What is left of it after the integral for two Gaussians of the largest
    scale, which is known, is smooth and falls off as a Gaussian does, so that the trapezoid rule
    converges exponentially (Trefethen and Weideman, 2014, "The exponentially convergent
    trapezoidal rule").

    Args:
        means: ``(n_samples, n)`` float64.
        variances: of the same shape, all positive.
        n_frequencies: as many as every column needs, or more.
    """
    largest = variances.amax(0)
    unit = largest.sqrt()
    step = 2 * math.pi / (_spread(means) / unit + _REACH)
    phases = step * (means - means[0]) / unit
    exponents = -0.5 * (variances / largest) * step.square()
    at_zero = (phases.var(0, correction=0) - 2 * exponents.mean(0)) / step.square() - 1
    total = 0.5 * at_zero  # the first summand of the trapezoid rule
    ratios = terms = torch.complex(exponents, phases).exp()
    decay = (2 * exponents).exp()
    for k in range(1, n_frequencies + 1):  # terms: exp(k^2 exponents + i k phases)
        phi, t_squared = terms.mean(0), (k * step).square()
        total += ((-t_squared).exp() - phi.real.square() - phi.imag.square()) / t_squared
        ratios = ratios * decay
        terms = terms * ratios
    return unit * (2 / math.sqrt(math.pi) + 2 / math.pi * step * total)


def frequencies_needed(means: torch.Tensor, variances: torch.Tensor) -> torch.Tensor:
    """For the integral to be exact to rounding, ``(n,)``; not finite where there is none."""
    smallest, largest = (variance.sqrt() for variance in variances.aminmax(dim=0))
    reach = (_spread(means) + _REACH * largest) / smallest
    return (_LAST / (2 * math.pi) * reach).ceil()


def _spread(means: torch.Tensor) -> torch.Tensor:
    smallest, largest = means.aminmax(dim=0)
    return largest - smallest
