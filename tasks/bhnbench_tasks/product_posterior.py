"""The exact posterior of a and b in y = a b x: Gaussian in b for each a, so all but analytic."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from bhnbench.contract import Split, Table
from bhnbench.errors import DivergedError

N_CELLS = 40  # of the histogram, in one direction
N_WITHIN = 512  # values of a in a cell at which masses are summed
LOWEST = 100.0  # nats below the peak of the density, where all its mass is above
N_HALVINGS = 50  # of that, to find a threshold: 1e-13 nats are left


@dataclass(frozen=True)
class ProductPosterior:
    """Density exp(-precision / 2 (ab - slope)^2 - (a^2 + b^2) / (2 prior_sd^2)), up to a constant.

    That is the posterior of a linear regression through zero, with the slope written as ``a b``:
    ``precision = sum x^2 / noise_sd^2``, ``slope = sum x y / sum x^2``.
    """

    slope: float
    precision: float
    prior_sd: float

    @classmethod
    def of(cls, train: Split, noise_sd: float, prior_sd: float) -> ProductPosterior:
        """From inputs whose first column is x, and targets ``(n, 1)``."""
        x, y = train.inputs[:, 0].double(), train.targets[:, 0].double()
        squares = x.square().sum()
        slope = (x * y).sum() / squares
        return cls(slope.item(), squares.item() / noise_sd**2, prior_sd)

    @property
    def limit(self) -> float:
        """The largest a and b in sight: where ``a b`` is the slope, e^-12 of the density is left.

        That is 5 prior standard deviations, or more where the prior is far from the slope.
        """
        t = 2 * abs(self.slope) + 24 * self.prior_sd**2
        return math.sqrt((t + math.sqrt(t**2 - 4 * self.slope**2)) / 2)

    def log_density(self, weights: torch.Tensor) -> torch.Tensor:
        """Up to a constant, nats: ``(..., 2) -> (...)``."""
        misfit = self.precision * (weights.prod(-1) - self.slope).square()
        return -0.5 * (misfit + weights.square().sum(-1) / self.prior_sd**2)

    def log_density_at_mass(self, mass: float) -> float:
        """The density above which the posterior has this much of its mass, as ``log_density``.

        Given a, b is that dense within some standard deviations of its mean.
        """
        a = self._positive()
        mean, _, log_density = self._given(a)
        highest, shares = self.log_density(torch.stack([a, mean], dim=-1)), log_density.softmax(0)
        high = highest.max().item()
        low = high - LOWEST
        for _ in range(N_HALVINGS):
            middle = (low + high) / 2
            within = (highest - middle).clamp_(min=0).sqrt_().erf_()
            low, high = (middle, high) if torch.dot(shares, within) >= mass else (low, middle)
        return low

    def grid(self, n: int) -> torch.Tensor:
        """Centres of ``n`` by ``n`` squares, ``(n, n, 2)``: a along the first dimension."""
        axis = self._axis(n)
        return torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1)

    def _axis(self, n: int) -> torch.Tensor:
        places = (torch.arange(n, dtype=torch.float64) + 0.5) / n
        return self.limit * (2 * places - 1)

    def _positive(self) -> torch.Tensor:
        """Values of a that masses are summed at; (a, b) is as likely as (-a, -b)."""
        return self._axis(N_CELLS * N_WITHIN)[N_CELLS * N_WITHIN // 2 :]

    def _given(self, a: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Mean and standard deviation of b, which is Gaussian given a; log density of a."""
        precision = self.precision * a.square() + self.prior_sd**-2
        mean = self.precision * self.slope * a / precision
        misfit = self.precision * self.slope**2 / (self.prior_sd**2 * precision)
        log_density = -0.5 * (a.square() / self.prior_sd**2 + misfit + precision.log())
        return mean, precision.rsqrt(), log_density

    def kl_of(self, weights: torch.Tensor) -> float:
        """KL divergence, in nats, of samples ``(n_samples, 2)`` to the posterior.

        Both are histograms of 40 by 40 cells as far as ``limit`` to all sides; samples beyond
        count in the cell next to them. It is always finite, and about ``(k - 1) / (2 n_samples)``
        too high of exact samples that fall into ``k`` cells (Miller, 1955, "Note on the bias of
        information estimates").

        Raises:
            DivergedError: a sample is not a number.
        """
        if weights.isnan().any():
            raise DivergedError("samples of the weights must be numbers, but some are nan")
        places = (weights / self.limit + 1) * (N_CELLS / 2)
        cells = places.floor().clamp(0, N_CELLS - 1).long()
        counts = torch.bincount(cells[:, 0] * N_CELLS + cells[:, 1], minlength=N_CELLS**2)
        shares = counts.double() / len(weights)
        terms: torch.Tensor = torch.special.xlogy(shares, shares) - shares * self.log_masses()
        return terms.sum().item()

    def log_masses(self) -> torch.Tensor:
        """Log of the posterior's mass in every cell, ``(N_CELLS^2,)``, a-major; never -inf."""
        a = self._positive()
        mean, sd, log_density = (values.unsqueeze(-1) for values in self._given(a))
        edges = self.limit * torch.linspace(-1, 1, N_CELLS + 1, dtype=a.dtype)
        log_masses = log_density + _log_masses_between((edges - mean) / sd)
        summed = log_masses.view(N_CELLS // 2, N_WITHIN, N_CELLS).logsumexp(1)
        return torch.cat([summed.flip(0, 1), summed]).flatten().log_softmax(0)

    def as_table(self) -> Table:
        """One row."""
        return {name: np.array([value]) for name, value in vars(self).items()}

    @classmethod
    def from_table(cls, table: Table) -> ProductPosterior:
        """The reverse of ``as_table``."""
        return cls(**{name: float(column[0]) for name, column in table.items()})


def _log_masses_between(edges: torch.Tensor) -> torch.Tensor:
    """Log of the standard normal's mass between neighbours, also far out, where it is 0 itself.

    Args:
        edges: increasing, and neighbours not too close to each other: ``(..., n)``.
    """
    tails = torch.special.log_ndtr(-edges.abs())  # the mass farther out
    shares = tails.exp()
    around_zero = torch.log1p(-shares[..., :-1] - shares[..., 1:])
    inner, outer = (f(tails[..., :-1], tails[..., 1:]) for f in (torch.maximum, torch.minimum))
    to_one_side = inner + torch.log(-torch.expm1(outer - inner))
    has_zero = (edges[..., :-1] < 0) & (edges[..., 1:] > 0)
    return torch.where(has_zero, around_zero, to_one_side)
