"""How uncertain a classifier's predictive samples are, in nats where it is information.

Every score takes the class probabilities of posterior samples, ``(n_samples, n, n_classes)``, that
``class_probabilities`` makes of their logits, and gives ``(n,)`` float64 values: higher is more
uncertain. The definitions are those of Gal, Islam and Ghahramani (2017), "Deep Bayesian active
learning with image data", section 4, with natural logarithms.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F


def class_probabilities(logits: torch.Tensor) -> torch.Tensor:
    """Probabilities of classes, ``(..., n, n_classes)`` float64; log probabilities are logits too.

    float64, because BALD is a small difference of two large numbers.
    """
    # Of few classes, softmax is seven times as fast where they are not the last dimension.
    classes_first = logits.transpose(-1, -2).contiguous().double()
    return torch.softmax(classes_first, dim=-2).transpose(-1, -2)


def predictive_entropy(probs: torch.Tensor) -> torch.Tensor:
    """Entropy of the mean class probabilities (max-entropy), in [0, log n_classes] nats."""
    return entropy(probs.mean(0))


def expected_entropy(probs: torch.Tensor) -> torch.Tensor:
    """Mean over samples of the entropy of each: the part that more data cannot remove, nats."""
    return entropy(probs).mean(0)


def bald(probs: torch.Tensor) -> torch.Tensor:
    """Mutual information of the class and the parameters (Houlsby et al., 2011), nats.

    The predictive entropy less the expected entropy; not below 0, and 0 where samples agree.
    """
    return (predictive_entropy(probs) - expected_entropy(probs)).clamp(min=0)


def variation_ratio(probs: torch.Tensor) -> torch.Tensor:
    """Share of samples that vote for another class than most do, in [0, 1 - 1 / n_classes].

    A sample votes for its likeliest class, the first of several. (One minus the largest *mean
    probability* is another quantity that goes by the same name.)
    """
    votes = F.one_hot(probs.argmax(-1), probs.shape[-1]).sum(0)
    return 1 - votes.max(-1).values.double() / len(probs)


def least_confidence(probs: torch.Tensor) -> torch.Tensor:
    """One minus the largest mean probability of a class, in [0, 1 - 1 / n_classes].

    The variation ratio of the predictive distribution itself (Hendrycks and Gimpel, 2017).
    """
    # As the sum of the others: 1 - max would be 0 where they are below 1e-16.
    return probs.mean(0).sort(-1).values[..., :-1].sum(-1)


def mean_sd(probs: torch.Tensor) -> torch.Tensor:
    """Standard deviation of a class's probability over samples, averaged over the classes."""
    return (probs - probs.mean(0)).square().mean(0).sqrt().mean(-1)


def entropy(probs: torch.Tensor) -> torch.Tensor:
    """Of each distribution over classes, nats: ``(..., n_classes) -> (...)``."""
    terms: torch.Tensor = torch.special.entr(probs)  # entr(0) = 0
    return terms.sum(-1)
