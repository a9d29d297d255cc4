"""Scores of predictions, each with its direction and unit.

``probs`` and ``log_probs`` are class probabilities ``(n, n_classes)`` and their logarithms.
"""

from __future__ import annotations

import math

import torch

from bhnbench.contract import Metric
from bhnbench.errors import DivergedError

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

N_BINS = 15  # of confidence


def mixture_log_probs(logits: torch.Tensor) -> torch.Tensor:
    """Log of the mean class probabilities: ``(n_samples, n, n_classes) -> (n, n_classes)``."""
    # Of few classes, softmax is seven times as fast where they are not the last dimension.
    log_probs = torch.log_softmax(logits.transpose(-1, -2).contiguous(), dim=-2)
    return torch.logsumexp(log_probs, dim=0).transpose(-1, -2) - math.log(len(logits))


def mixture_log_likelihood(log_densities: torch.Tensor) -> float:
    """Mean log density of an equal mixture, nats per example: ``(n_samples, n)``."""
    mixture = torch.logsumexp(log_densities, dim=0) - math.log(len(log_densities))
    return mixture.mean().item()


def accuracy(probs: torch.Tensor, targets: torch.Tensor) -> float:
    """Percentage of examples whose likeliest class is the target.

    Raises:
        DivergedError: a probability is not a number, so that no class is the likeliest.
    """
    if probs.isnan().any():
        raise DivergedError("probabilities must be numbers, but some are nan")
    return 100.0 * (probs.argmax(-1) == targets).double().mean().item()


def nll(log_probs: torch.Tensor, targets: torch.Tensor) -> float:
    """Mean negative log probability of the target class, nats per example."""
    return -log_probs.gather(-1, targets.unsqueeze(-1)).mean().item()


def brier(probs: torch.Tensor, targets: torch.Tensor) -> float:
    """Brier (1950): mean over examples of the summed squared error over classes, in [0, 2]."""
    one_hot = torch.nn.functional.one_hot(targets, probs.shape[-1])
    return (probs - one_hot).square().sum(-1).mean().item()


def ece(probs: torch.Tensor, targets: torch.Tensor, n_bins: int = N_BINS) -> float:
    """Expected calibration error in % (Guo et al., 2017, equation 3) of ``reliability_bins``."""
    bins = reliability_bins(probs, targets, n_bins)
    gaps = bins["n"] * (bins["accuracy"] - bins["confidence"]).abs()
    return (gaps.sum() / len(targets)).item()


def reliability_bins(
    probs: torch.Tensor, targets: torch.Tensor, n_bins: int = N_BINS
) -> dict[str, torch.Tensor]:
    """Examples by the confidence in their likeliest class: a reliability diagram's points.

    Bins are ``(low, high]`` and of equal width; a confidence of exactly 1 belongs to the last.

    Returns:
        Number ``n`` of examples, mean ``confidence`` in % and ``accuracy`` in % of each bin,
        ``(n_bins,)`` float64; 0 where a bin is empty.
    """
    confidence, predicted = probs.double().max(-1)
    columns = torch.stack([torch.ones_like(confidence), confidence, predicted == targets])
    inner_edges = torch.arange(1, n_bins, dtype=columns.dtype, device=columns.device) / n_bins
    place = torch.bucketize(confidence, inner_edges)
    n, sure, right = columns.new_zeros(3, n_bins).index_add(1, place, columns)
    share = 100 / n.clamp(min=1)
    return {"n": n, "confidence": share * sure, "accuracy": share * right}


def rmse(predictions: torch.Tensor, targets: torch.Tensor) -> float:
    """Root mean squared error, in the unit of the targets."""
    return (predictions - targets).square().mean().sqrt().item()
