"""How a network's outputs are read: Categorical for classes, Gaussian for real values."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from bhnbench import metrics

MIN_SCALE = 1e-6  # keeps the Gaussian density finite (Lakshminarayanan et al., 2017, section 2.2)


@dataclass(frozen=True)
class Categorical:
    """Outputs are logits ``(..., n, n_classes)``; targets are classes ``(n,)``."""

    n_classes: int

    def log_prob(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Log probability of the target class, nats: ``(..., n)``."""
        index = targets.expand(outputs.shape[:-1]).unsqueeze(-1)
        return F.log_softmax(outputs, dim=-1).gather(-1, index).squeeze(-1)

    def scores(self, outputs: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
        """Accuracy, nll, Brier score and ECE of the mean class probabilities."""
        log_probs = metrics.mixture_log_probs(outputs)
        probs = log_probs.exp()
        return {
            "accuracy": metrics.accuracy(probs, targets),
            "nll": metrics.nll(log_probs, targets),
            "brier": metrics.brier(probs, targets),
            "ece": metrics.ece(probs, targets),
        }


@dataclass(frozen=True)
class Gaussian:
    """Outputs ``(..., n, 2 d)`` are means and raw scales; targets are values ``(n, d)``.

    The standard deviation is ``softplus(raw) + 1e-6``. A network may compute the raw scale from
    its inputs (heteroscedastic noise) or hold it as one parameter (homoscedastic noise).
    """

    def split(self, outputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Means and standard deviations, each ``(..., n, d)``."""
        mean, raw = outputs.chunk(2, dim=-1)
        return mean, F.softplus(raw) + MIN_SCALE

    def log_prob(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Log density of all ``d`` values together, nats: ``(..., n)``."""
        mean, sd = self.split(outputs)
        standardised = (targets - mean) / sd
        return (-0.5 * standardised.square() - sd.log() - 0.5 * math.log(2 * math.pi)).sum(-1)

    def scores(self, outputs: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
        """Log-likelihood of the Gaussian mixture, and rmse of its mean."""
        mean, _ = self.split(outputs)
        return {
            "log_likelihood": metrics.mixture_log_likelihood(self.log_prob(outputs, targets)),
            "rmse": metrics.rmse(mean.mean(0), targets),
        }
