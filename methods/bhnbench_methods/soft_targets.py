"""Likelihoods whose targets may be the predictive distribution of another model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from bhnbench.contract import Likelihood
from bhnbench.likelihoods import Categorical, Gaussian


@dataclass(frozen=True)
class SoftCategorical(Categorical):
    """Targets are classes, or a teacher's class probabilities ``(n, n_classes)``."""

    def summary(self, outputs: torch.Tensor) -> torch.Tensor:
        """Mean class probabilities of the teacher's samples."""
        return outputs.softmax(-1).mean(0)

    def log_prob(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Log probability, or its expectation under the teacher."""
        if not targets.is_floating_point():
            return super().log_prob(outputs, targets)
        return (targets * F.log_softmax(outputs, dim=-1)).sum(-1)


@dataclass(frozen=True)
class SoftGaussian(Gaussian):
    """Targets are values ``(n, d)``, or a teacher's means and variances ``(n, 2 d)``."""

    def summary(self, outputs: torch.Tensor) -> torch.Tensor:
        """Mean and variance of the mixture of the teacher's samples."""
        mean, sd = self.split(outputs)
        variance = sd.square().mean(0) + mean.var(0, correction=0)
        return torch.cat([mean.mean(0), variance], dim=-1)

    def log_prob(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Log density, or its expectation under the teacher."""
        if targets.shape[-1] != outputs.shape[-1]:
            return super().log_prob(outputs, targets)
        mean, variance = targets.chunk(2, dim=-1)
        _, sd = self.split(outputs)
        return super().log_prob(outputs, mean) - 0.5 * (variance / sd.square()).sum(-1)


SOFTENED: dict[type[Likelihood], Callable[[Any], SoftCategorical | SoftGaussian]] = {
    Categorical: lambda likelihood: SoftCategorical(likelihood.n_classes),
    Gaussian: lambda _: SoftGaussian(),
}
"""What takes the place of a likelihood, by its class."""
