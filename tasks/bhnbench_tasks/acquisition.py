"""Which points to label next: the most uncertain ones, or BatchBALD's choice of a whole batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch

from bhnbench import uncertainty
from bhnbench.errors import DivergedError
from bhnbench.space import Choice
from bhnbench.uncertainty import class_probabilities, entropy
from bhnbench_tasks.scores import probabilities_in_chunks

SCORES: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "bald": uncertainty.bald,
    "max_entropy": uncertainty.predictive_entropy,
    "variation_ratio": uncertainty.variation_ratio,
    "mean_sd": uncertainty.mean_sd,
}
ACQUISITIONS = Choice(*SCORES, "batch_bald", "random")
N_LABELLINGS = 1000  # of the points chosen so far: exact up to three points with ten classes
_DECIMALS = 6  # of a score, in nats; what is less is rounding
_BLOCK = 100  # candidates that BatchBALD looks at together: 8 MB with 1000 labellings, 10 classes


def choose_points(
    acquisition: str, outputs: torch.Tensor, n: int, *, rng: torch.Generator
) -> torch.Tensor:
    """Places of the ``n`` candidates to label, the best first; ties go to the lower place.

    Args:
        acquisition: one of ``ACQUISITIONS`` but ``random``.
        outputs: logits of posterior samples, ``(n_samples, n_candidates, n_classes)``.
        n: how many, or all where there are fewer.
        rng: for labels that ``batch_bald`` samples.

    Raises:
        DivergedError: an output is not finite, so that candidates have no order.
    """
    if not outputs.isfinite().all():
        raise DivergedError("outputs for the candidates must be finite, but some are not")
    if acquisition == "batch_bald":
        return batch_bald(outputs, n, rng=rng).places
    score = SCORES[acquisition]
    scores = torch.cat([score(probs).cpu() for probs in probabilities_in_chunks(outputs)])
    return scores.round(decimals=_DECIMALS).argsort(descending=True, stable=True)[:n]


class Batch(NamedTuple):
    """A batch of points, in the order of choice."""

    places: torch.Tensor  # (n,)
    gains: torch.Tensor  # (n,) what each adds to the mutual information of labels and parameters


def batch_bald(
    logits: torch.Tensor, n: int, *, rng: torch.Generator, n_labellings: int = N_LABELLINGS
) -> Batch:
    """The batch whose labels, taken together, tell most about the parameters (greedily).

    BALD scores points one by one, and so buys the same information again and again; this is the
    mutual information ``I(y_1 ... y_n; w)`` of Kirsch, van Amersfoort and Gal (2019), "BatchBALD:
    efficient and diverse batch acquisition for deep Bayesian active learning". The point that is
    added is the one with the largest

        I(y; w | y_1 ... y_k) = E[H(y | y_1 ... y_k) - H(y | w)]

    which is the paper's joint information less that of the k points. The expectation is over
    labellings of the k chosen points: over all of them while they are at most ``n_labellings``,
    later over so many sampled ones. Each keeps its posterior over the samples w, so that nothing
    underflows however large the batch. The first point is BALD's.

    Departure: both entropies are averaged over the same labellings and their posteriors, not the
    second one over all w; the same expectation, with a third of the error where we tried it.

    What a point adds can only fall as others are chosen. So its last value is a bound, and those
    points are left alone whose bound is below the best value found (Minoux, 1978).

    Args:
        logits: of posterior samples, ``(n_samples, n_candidates, n_classes)``.
        n: points to choose, or all where there are fewer.
        rng: for the labellings that are sampled, on the CPU.
        n_labellings: more give less Monte-Carlo error and take longer.
    """
    probs = class_probabilities(logits)
    gains = probs.new_full((probs.shape[1],), torch.inf)
    labellings = _Labellings.of_nothing(probs)
    places: list[int] = []
    chosen: list[float] = []
    for _ in range(min(n, len(gains))):
        order = gains.argsort(descending=True, stable=True)[: len(gains) - len(places)]
        place = _find_best(gains, order, labellings, probs)
        places.append(place)
        chosen.append(gains[place].item())
        gains[place] = -torch.inf  # to the end of the order
        labellings = labellings.extended(probs[:, place]).thinned(n_labellings, rng)
    return Batch(torch.tensor(places), torch.tensor(chosen, dtype=gains.dtype))


def _find_best(
    gains: torch.Tensor, order: torch.Tensor, labellings: _Labellings, probs: torch.Tensor
) -> int:
    """The point of the largest gain, the first of several; ``gains`` are brought up to date.

    Args:
        gains: last values, which are bounds, ``(n_candidates,)``.
        order: points to choose from, those of the highest bounds first.
        labellings: of the points chosen so far.
        probs: ``(n_samples, n_candidates, n_classes)``.
    """
    best_place, best_gain = -1, -torch.inf
    for block in torch.split(order, _BLOCK):
        if gains[block[0]] <= best_gain:
            break
        gain = labellings.mean_information(probs[:, block]).clamp(min=0)
        gains[block] = gain.round(decimals=_DECIMALS)
        top = int(block[gains[block].argmax()])
        if gains[top] > best_gain:
            best_place, best_gain = top, gains[top].item()
    return best_place


@dataclass(frozen=True)
class _Labellings:
    """Labellings of the chosen points: their probabilities, and what each says of the samples."""

    masses: torch.Tensor  # (m,), sum to 1
    posteriors: torch.Tensor  # (m, n_samples), rows sum to 1

    @classmethod
    def of_nothing(cls, probs: torch.Tensor) -> _Labellings:
        """The empty labelling; all samples are equally probable."""
        return cls(probs.new_ones(1), probs.new_full((1, len(probs)), 1 / len(probs)))

    def mean_information(self, probs: torch.Tensor) -> torch.Tensor:
        """``I(y; w)`` of each point's label, given the labelling: ``(s, n, c) -> (n,)``."""
        predictive = torch.tensordot(self.posteriors, probs, dims=1)  # (m, n, c)
        known = (self.masses @ self.posteriors) @ entropy(probs)
        return self.masses @ entropy(predictive) - known

    def extended(self, probs: torch.Tensor) -> _Labellings:
        """With every label of one more point, whose probabilities are ``(n_samples, c)``."""
        joint = self.posteriors.unsqueeze(1) * probs.mT  # (m, c, n_samples)
        shares = joint.sum(-1)  # of a label, given the labelling
        tiny = torch.finfo(shares.dtype).tiny  # a label that cannot be has no mass
        posteriors = joint / shares.clamp(min=tiny).unsqueeze(-1)
        return _Labellings(
            (self.masses.unsqueeze(-1) * shares).flatten(), posteriors.flatten(0, 1)
        )

    def thinned(self, n: int, rng: torch.Generator) -> _Labellings:
        """At most ``n`` of them: a systematic sample, whose expectations are unbiased."""
        if len(self.masses) <= n:
            return self
        offset = torch.rand((), generator=rng, dtype=self.masses.dtype).to(self.masses.device)
        cumulative = self.masses.cumsum(0)
        at = (torch.arange(n, device=offset.device) + offset) * (cumulative[-1] / n)
        kept = torch.searchsorted(cumulative, at, right=True).clamp(max=len(cumulative) - 1)
        return _Labellings(self.masses.new_full((n,), 1 / n), self.posteriors[kept])
