"""The exact posterior of a and b in y = a b x: Gaussian in b for each a, so all but analytic."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from bhnbench.contract import Split, Table

N_CELLS = 40  # of the histogram, in one direction
N_WITHIN = 512  # values of a in a cell at which its mass is summed
N_QUANTILES = 256  # of b, for each of 64 values of a in a cell: they find a region of high density


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
        """The density above which the posterior has this much of its mass, as ``log_density``."""
        a = self._axis(N_CELLS * 64)
        mean, sd, log_density = (values.unsqueeze(-1) for values in self._given(a))
        quantiles = (torch.arange(N_QUANTILES, dtype=a.dtype) + 0.5) / N_QUANTILES
        b = mean + sd * torch.special.ndtri(quantiles)
        pairs = torch.stack([a.unsqueeze(-1).expand_as(b), b], dim=-1)
        densities, order = self.log_density(pairs).flatten().sort(descending=True)
        shares = (log_density.softmax(0) / N_QUANTILES).expand_as(b).flatten()[order]
        return densities[(shares.cumsum(0) < mass).sum()].item()

    def grid(self, n: int) -> torch.Tensor:
        """Centres of ``n`` by ``n`` squares, ``(n, n, 2)``: a along the first dimension."""
        axis = self._axis(n)
        return torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1)

    def _axis(self, n: int) -> torch.Tensor:
        places = (torch.arange(n, dtype=torch.float64) + 0.5) / n
        return self.limit * (2 * places - 1)

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
        """
        places = (weights / self.limit + 1) * (N_CELLS / 2)
        cells = places.floor().clamp(0, N_CELLS - 1).long()
        counts = torch.bincount(cells[:, 0] * N_CELLS + cells[:, 1], minlength=N_CELLS**2)
        shares = counts.double() / len(weights)
        terms: torch.Tensor = torch.special.xlogy(shares, shares) - shares * self.log_masses()
        return terms.sum().item()

    def log_masses(self) -> torch.Tensor:
        """Log of the posterior's mass in every cell, ``(N_CELLS^2,)``, a-major; never -inf."""
        mean, sd, log_density = self._given(self._axis(N_CELLS * N_WITHIN))
        edges = self.limit * torch.linspace(-1, 1, N_CELLS + 1, dtype=mean.dtype)
        z = (edges - mean.unsqueeze(-1)) / sd.unsqueeze(-1)
        log_masses = log_density.unsqueeze(-1) + _log_mass_between(z[:, :-1], z[:, 1:])
        summed = log_masses.view(N_CELLS, N_WITHIN, N_CELLS).logsumexp(1)
        return summed.flatten().log_softmax(0)

    def as_table(self) -> Table:
        """One row."""
        return {name: np.array([value]) for name, value in vars(self).items()}

    @classmethod
    def from_table(cls, table: Table) -> ProductPosterior:
        """The reverse of ``as_table``."""
        return cls(**{name: float(column[0]) for name, column in table.items()})


def _log_mass_between(low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """Log of the standard normal's mass, also far out, where the mass itself is 0."""
    is_above = low > 0  # mirrored, so that what is subtracted is small
    low, high = torch.where(is_above, -high, low), torch.where(is_above, -low, high)
    log_low, log_high = map(torch.special.log_ndtr, (low, high))
    log_mass: torch.Tensor = log_high + torch.log(-torch.expm1(log_low - log_high))
    return log_mass
