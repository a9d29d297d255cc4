"""Uncertainty scores that a detector ranks images by: higher is more suspicious.

The four of Krueger et al. (2017), "Bayesian hypernetworks". What their code calls the variation
ratio, one minus the largest mean probability, is ``least_confidence`` here; it is the score of
Hendrycks and Gimpel (2017), "A baseline for detecting misclassified and out-of-distribution
examples in neural networks".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import torch

from bhnbench import uncertainty
from bhnbench.contract import Predictive

SCORES: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "entropy": uncertainty.predictive_entropy,
    "least_confidence": uncertainty.least_confidence,
    "bald": uncertainty.bald,
    "mean_sd": uncertainty.mean_sd,
}
_OF_DISAGREEMENT = ("bald", "mean_sd")  # 0 where samples agree
_CHUNK = 2000  # images: bounds the memory of float64 copies


def sample_outputs(
    predictive: Predictive, inputs: torch.Tensor, n_samples: int, rng: torch.Generator
) -> torch.Tensor:
    """Logits ``(n_samples, n, n_classes)`` without a graph; one sample where all are the same.

    A deterministic method repeats one sample without a copy of it: what is computed from it need
    not be repeated either.
    """
    outputs = predictive.sample(inputs, n_samples, rng=rng).detach()
    return outputs[:1] if outputs.stride(0) == 0 else outputs


def uncertainty_scores(outputs: torch.Tensor) -> dict[str, torch.Tensor]:
    """Every score of every image, ``(n,)`` float64 on the CPU.

    Scores of disagreement are rounded to 1e-12: below it, samples that are equal differ by
    rounding, which would rank the images of a deterministic method.

    Args:
        outputs: logits of posterior samples, ``(n_samples, n, n_classes)``.
    """
    scored = [_scores(probs) for probs in probabilities_in_chunks(outputs)]
    return {name: torch.cat([scores[name] for scores in scored]).cpu() for name in SCORES}


def probabilities_in_chunks(outputs: torch.Tensor) -> Iterator[torch.Tensor]:
    """Class probabilities of these logits, some images at a time, in order."""
    return map(uncertainty.class_probabilities, torch.split(outputs.detach(), _CHUNK, dim=1))


def _scores(probs: torch.Tensor) -> dict[str, torch.Tensor]:
    scores = {name: score(probs) for name, score in SCORES.items()}
    return scores | {name: scores[name].round(decimals=12) for name in _OF_DISAGREEMENT}


def largest_score(name: str, n_classes: int) -> float:
    """The largest value that a score can take, for the axis of a histogram.

    The standard deviation is largest where each sample is certain of a class and the classes are
    equally frequent: sqrt(p (1 - p)) with p = 1 / n_classes.
    """
    p = 1 / n_classes
    if name == "mean_sd":
        return math.sqrt(p * (1 - p))
    return 1 - p if name == "least_confidence" else math.log(n_classes)
