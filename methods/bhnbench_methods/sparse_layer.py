"""The layer of sparse variational dropout: weights with rates of their own, some pruned."""

from __future__ import annotations

import torch
from torch import nn

from bhnbench_methods.divergences import additive_log_uniform_kl
from bhnbench_methods.gaussian_weights import GaussianLayer, Posterior


class SparseLayer(GaussianLayer):
    """Weights ``N(theta, exp(log_variance))``; those of ``log alpha >= threshold`` are pruned."""

    def __init__(self, layer: nn.Module, initial_log_variance: float, threshold: float) -> None:
        super().__init__(layer)
        self.threshold = threshold
        self.log_variance = nn.Parameter(torch.full_like(self.mean, initial_log_variance))

    def posterior(self) -> Posterior:
        """Of the weights; the biases are point estimates."""
        variance, kl, _ = additive_log_uniform_kl(self.mean, self.log_variance)
        return Posterior(variance, None, kl)

    def kept(self) -> torch.Tensor:
        """Which weights are below the threshold."""
        _, _, log_alpha = additive_log_uniform_kl(self.mean, self.log_variance)
        return log_alpha < self.threshold

    def sampled_moments(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and variance, both zero where a weight is pruned."""
        mean, variance = super().sampled_moments()
        kept = self.kept().flatten()
        return mean * kept, variance * kept

    def pruned(self) -> nn.Module:
        """The plain layer; it is changed in place."""
        with torch.no_grad():
            self.mean.mul_(self.kept())
        return self.layer
