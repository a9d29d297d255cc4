"""The exact posterior of a and b in y = a b x, on a grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from bhnbench.contract import Split, Table

LIMIT = 4.0  # of the grid, in both directions, and in prior standard deviations
N_CELLS = 40  # of the histogram, in one direction
N_WITHIN = 16  # points of a cell, in one direction, at which its mass is summed


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

    def log_density(self, weights: torch.Tensor) -> torch.Tensor:
        """Up to a constant, nats: ``(..., 2) -> (...)``."""
        misfit = self.precision * (weights.prod(-1) - self.slope).square()
        return -0.5 * (misfit + weights.square().sum(-1) / self.prior_sd**2)

    def log_density_at_mass(self, mass: float) -> float:
        """The density above which the posterior has this much of its mass, as ``log_density``."""
        values = self.log_density(self.grid()).flatten().sort(descending=True).values
        cumulated = values.softmax(0).cumsum(0)
        return values[(cumulated < mass).sum()].item()

    def grid(self, n: int = N_CELLS * N_WITHIN) -> torch.Tensor:
        """Centres of ``n`` by ``n`` squares, ``(n, n, 2)``: a along the first dimension."""
        places = (torch.arange(n, dtype=torch.float64) + 0.5) / n
        axis = self.prior_sd * LIMIT * (2 * places - 1)
        return torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1)

    def kl_of(self, weights: torch.Tensor) -> float:
        """KL divergence, in nats, of samples ``(n_samples, 2)`` to the posterior.

        Both are histograms of 40 by 40 cells over four prior standard deviations to all sides;
        samples beyond count in the cell next to them. It is always finite, and about
        ``(k - 1) / (2 n_samples)`` too high of exact samples that fall into ``k`` cells (Miller,
        1955, "Note on the bias of information estimates").
        """
        edge = self.prior_sd * LIMIT
        places = (weights / edge + 1) * (N_CELLS / 2)
        cells = places.floor().clamp(0, N_CELLS - 1).long()
        counts = torch.bincount(cells[:, 0] * N_CELLS + cells[:, 1], minlength=N_CELLS**2)
        shares = counts.double() / len(weights)
        terms: torch.Tensor = torch.special.xlogy(shares, shares) - shares * self.log_masses()
        return terms.sum().item()

    def log_masses(self) -> torch.Tensor:
        """Log of the posterior's mass in every cell, ``(N_CELLS^2,)``, a-major; never -inf."""
        fine = self.log_density(self.grid()).view(N_CELLS, N_WITHIN, N_CELLS, N_WITHIN)
        return fine.logsumexp((1, 3)).flatten().log_softmax(0)

    def as_table(self) -> Table:
        """One row."""
        return {name: np.array([value]) for name, value in vars(self).items()}

    @classmethod
    def from_table(cls, table: Table) -> ProductPosterior:
        """The reverse of ``as_table``."""
        return cls(**{name: float(column[0]) for name, column in table.items()})
