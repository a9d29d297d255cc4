"""Detectors that rank images by one uncertainty score, which is fixed on validation data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from bhnbench.contract import Table
from bhnbench.detection import auroc, roc_table
from bhnbench.space import Choice
from bhnbench_tasks.scores import SCORES, largest_score

AUTO = "auto"
SCORE_NAMES = Choice(AUTO, *SCORES)
N_BINS = 40


@dataclass(frozen=True)
class Ranked:
    """Images ``(n,)`` with their uncertainty scores, and which of them a detector should find."""

    scores: Mapping[str, torch.Tensor]
    is_positive: torch.Tensor

    def aurocs(self) -> dict[str, float]:
        """AUROC of each score, in %."""
        return {name: auroc(score, self.is_positive) for name, score in self.scores.items()}


def chosen_score(setting: str, validation: Ranked) -> str:
    """The score of that name; of ``auto``, the best on validation data, the first of equals."""
    aurocs = validation.aurocs()
    return max(aurocs, key=aurocs.__getitem__) if setting == AUTO else setting


def tables(validation: Ranked, scored: Ranked, chosen: str, n_classes: int) -> dict[str, Table]:
    """What the figures show: the ROC curve of the chosen score, and all scores beside it."""
    return {
        "roc": roc_table(scored.scores[chosen], scored.is_positive),
        "scores": _score_table(validation, scored, chosen),
        "histogram": _histogram_table(scored, n_classes),
    }


def _score_table(validation: Ranked, scored: Ranked, chosen: str) -> Table:
    """For information: AUROC (%) of each score on validation data and where it is scored.

    A row a score, in the order of ``SCORES``: ``score`` (its place), ``validation_auroc``,
    ``auroc``, ``chosen`` (1 for the one that the metrics are of).
    """
    names = list(SCORES)
    before, after = validation.aurocs(), scored.aurocs()
    return {
        "score": np.arange(len(names)),
        "validation_auroc": np.array([before[name] for name in names]),
        "auroc": np.array([after[name] for name in names]),
        "chosen": np.array([int(name == chosen) for name in names]),
    }


def _histogram_table(ranked: Ranked, n_classes: int) -> Table:
    """How often a score takes each value: % of the positives and of the others in each bin.

    ``low`` is where a bin begins, as a share of the largest value that the score can take; bins
    are narrow where most scores are, near 0. ``NAME_positive`` and ``NAME_other`` are the columns
    of the score NAME.
    """
    edges = np.linspace(0, 1, N_BINS + 1) ** 2
    columns = {"low": edges[:-1]}
    for name, score in ranked.scores.items():
        share = (score / largest_score(name, n_classes)).clamp(0, 1)
        for group, members in (("positive", ranked.is_positive), ("other", ~ranked.is_positive)):
            counts, _ = np.histogram(share[members].numpy(), edges)
            columns[f"{name}_{group}"] = 100 * counts / max(int(members.sum()), 1)
    return columns
