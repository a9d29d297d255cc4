"""Uncertainty of a classifier's predictive samples, in nats where it is information.

Every function takes the logits of posterior samples, ``(n_samples, n, n_classes)`` (log
probabilities are logits too), and gives ``(n,)`` float64 values: higher is more uncertain.
The definitions are those of Gal, Islam and Ghahramani (2017), "Deep Bayesian active learning
with image data", section 4, with natural logarithms. float64, because BALD is a small
difference of two large numbers.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F


def predictive_entropy(logits: torch.Tensor) -> torch.Tensor:
    """Entropy of the mean class probabilities (max-entropy), in [0, log n_classes] nats."""
    return _entropy(_probs(logits).mean(0))


def expected_entropy(logits: torch.Tensor) -> torch.Tensor:
    """Mean over samples of the entropy of each: the part that more data cannot remove, nats."""
    return _entropy(_probs(logits)).mean(0)


def bald(logits: torch.Tensor) -> torch.Tensor:
    """Mutual information of the class and the parameters (Houlsby et al., 2011), nats.

    The predictive entropy less the expected entropy; not below 0, and 0 where samples agree.
    """
    return (predictive_entropy(logits) - expected_entropy(logits)).clamp(min=0)


def variation_ratio(logits: torch.Tensor) -> torch.Tensor:
    """Share of samples that vote for another class than most do, in [0, 1 - 1 / n_classes].

    A sample votes for its likeliest class, the first of several. (One minus the largest *mean
    probability* is another quantity that goes by the same name.)
    """
    votes = F.one_hot(logits.argmax(-1), logits.shape[-1]).sum(0)
    return 1 - votes.max(-1).values.double() / len(logits)


def least_confidence(logits: torch.Tensor) -> torch.Tensor:
    """One minus the largest mean probability of a class, in [0, 1 - 1 / n_classes].

    The variation ratio of the predictive distribution itself (Hendrycks and Gimpel, 2017).
    """
    # As the sum of the others: 1 - max would be 0 where they are below 1e-16.
    return _probs(logits).mean(0).sort(-1).values[..., :-1].sum(-1)


def mean_sd(logits: torch.Tensor) -> torch.Tensor:
    """Standard deviation of a class's probability over samples, averaged over the classes."""
    return _probs(logits).std(0, correction=0).mean(-1)


def _probs(logits: torch.Tensor) -> torch.Tensor:
    return torch.softmax(logits.double(), dim=-1)


def _entropy(probs: torch.Tensor) -> torch.Tensor:
    terms: torch.Tensor = torch.special.entr(probs)  # entr(0) = 0
    return terms.sum(-1)
