"""Scores of predictions, each with its direction and unit.

``probs`` and ``log_probs`` are class probabilities ``(n, n_classes)`` and their logarithms.
"""

from __future__ import annotations

import math

import torch

from bhnbench.contract import Metric

ACCURACY = Metric("accuracy", "maximize", "%", "share of examples whose likeliest class is right")
NLL = Metric("nll", "minimize", "nats", "mean negative log probability of the target class")
BRIER = Metric(
    "brier", "minimize", "", "mean squared distance of probabilities to the one-hot target"
)
ECE = Metric("ece", "minimize", "%", "expected calibration error, 15 equal bins, last one closed")
LOG_LIKELIHOOD = Metric(
    "log_likelihood", "maximize", "nats", "mean log density of the target under the mixture"
)
RMSE = Metric("rmse", "minimize", "", "root mean squared error of the predictive mean")


def mixture_log_probs(logits: torch.Tensor) -> torch.Tensor:
    """Log of the mean class probabilities: ``(n_samples, n, n_classes) -> (n, n_classes)``."""
    return torch.logsumexp(torch.log_softmax(logits, dim=-1), dim=0) - math.log(len(logits))


def mixture_log_likelihood(log_densities: torch.Tensor) -> float:
    """Mean log density of an equal mixture, nats per example: ``(n_samples, n)``."""
    mixture = torch.logsumexp(log_densities, dim=0) - math.log(len(log_densities))
    return mixture.mean().item()


def accuracy(probs: torch.Tensor, targets: torch.Tensor) -> float:
    """Percentage of examples whose likeliest class is the target."""
    return 100.0 * (probs.argmax(-1) == targets).double().mean().item()


def nll(log_probs: torch.Tensor, targets: torch.Tensor) -> float:
    """Mean negative log probability of the target class, nats per example."""
    return -log_probs.gather(-1, targets.unsqueeze(-1)).mean().item()


def brier(probs: torch.Tensor, targets: torch.Tensor) -> float:
    """Brier (1950): mean over examples of the summed squared error over classes, in [0, 2]."""
    one_hot = torch.nn.functional.one_hot(targets, probs.shape[-1])
    return (probs - one_hot).square().sum(-1).mean().item()


def ece(probs: torch.Tensor, targets: torch.Tensor, n_bins: int = 15) -> float:
    """Expected calibration error in % (Guo et al., 2017, equation 3).

    Bins are ``(low, high]``; a confidence of exactly 1 belongs to the last bin.
    """
    confidence, predicted = probs.double().max(-1)
    gap = (predicted == targets).double() - confidence
    inner_edges = torch.arange(1, n_bins, dtype=gap.dtype, device=gap.device) / n_bins
    bins = torch.bucketize(confidence, inner_edges)
    gap_per_bin = torch.zeros(n_bins, dtype=gap.dtype, device=gap.device).index_add(0, bins, gap)
    return 100.0 * gap_per_bin.abs().sum().item() / len(targets)


def rmse(predictions: torch.Tensor, targets: torch.Tensor) -> float:
    """Root mean squared error, in the unit of the targets."""
    return (predictions - targets).square().mean().sqrt().item()
