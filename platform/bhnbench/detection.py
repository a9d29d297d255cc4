"""How well a score finds positives (ROC, precision-recall), and a confidence errors (risk).

``scores`` and ``is_positive`` are ``(n,)``: higher is more positive; booleans. Examples with
equal scores share one threshold, so the order of examples never matters. Where a class is empty,
every function gives what it gives for a score that is the same for all examples: AUROC 50, AUPR
the base rate (0 or 100), FPR 100.

Every function raises ValueError without examples or where shapes differ, and DivergedError for a
score of NaN; infinite scores are scores.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from bhnbench.contract import Metric
from bhnbench.errors import DivergedError

if TYPE_CHECKING:
    import numpy as np

AUROC = Metric("auroc", "maximize", "%", "probability that a positive outranks a negative")
AUPR_IN = Metric(
    "aupr_in", "maximize", "%", "average precision in finding what is like the training data"
)
AUPR_OUT = Metric("aupr_out", "maximize", "%", "average precision in finding outliers")
FPR95 = Metric("fpr95", "minimize", "%", "false positive rate at a true positive rate of 95 %")
AURC = Metric("aurc", "minimize", "%", "error averaged over coverages, most confident first")


def auroc(scores: torch.Tensor, is_positive: torch.Tensor) -> float:
    """Area under the ROC curve in %; a tie of a positive and a negative counts half."""
    true, false = _counts(scores, is_positive)
    n_pairs = (true[-1] * false[-1]).item()
    return 100 * torch.trapezoid(true, false).item() / n_pairs if n_pairs else 50.0


def aupr(scores: torch.Tensor, is_positive: torch.Tensor) -> float:
    """Area under the precision-recall curve in %, as average precision.

    The precision at each threshold, weighted by what the threshold adds to the recall: straight
    lines between points would be too optimistic (Davis and Goadrich, 2006, "The relationship
    between precision-recall and ROC curves", section 4).
    """
    true, false = _counts(scores, is_positive)
    precision = (true / (true + false))[1:]
    return 100 * (precision * true.diff()).sum().item() / max(true[-1].item(), 1)


def fpr_at_tpr(scores: torch.Tensor, is_positive: torch.Tensor, tpr: float = 0.95) -> float:
    """The smallest false positive rate, in %, with a true positive rate of at least ``tpr``."""
    all_fpr, all_tpr = roc_curve(scores, is_positive)
    return 100 * all_fpr[all_tpr >= tpr][0].item()


def roc_curve(
    scores: torch.Tensor, is_positive: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """False and true positive rates, float64 in [0, 1]: (0, 0), then a point a threshold."""
    true, false = _counts(scores, is_positive)
    if true[-1] == 0 or false[-1] == 0:
        true = false = true.new_tensor([0, 1])
    return false / false[-1], true / true[-1]


def roc_table(scores: torch.Tensor, is_positive: torch.Tensor) -> dict[str, np.ndarray]:
    """The ROC curve in % at false positive rates of 0, 1, ..., 100 %: ``fpr`` and ``tpr``.

    Tables of several runs have the same rates, so that they can be averaged (vertical averaging,
    Fawcett, 2006, "An introduction to ROC analysis", section 9.1).
    """
    import numpy as np

    fpr, tpr = (rates.cpu().numpy() for rates in roc_curve(scores, is_positive))
    grid = np.arange(101.0)
    return {"fpr": grid, "tpr": 100 * np.interp(grid / 100, fpr, tpr)}


def risk_coverage(
    confidence: torch.Tensor, correct: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Share of examples that are kept, and of errors among them, ``(n,)`` each, in [0, 1].

    The k most confident examples are kept, for k = 1, ..., n (Geifman and El-Yaniv, 2017,
    "Selective classification for deep neural networks", section 2). Of equally confident ones
    any are kept, and the risk is its mean over these choices.
    """
    right, wrong = _counts(confidence, correct)
    n_tied = (right + wrong).diff()
    error = (wrong.diff() / n_tied).repeat_interleave(n_tied.long())
    kept = torch.arange(1, len(error) + 1, dtype=error.dtype, device=error.device)
    return kept / len(error), error.cumsum(0) / kept


def aurc(confidence: torch.Tensor, correct: torch.Tensor) -> float:
    """Area under the risk-coverage curve: the mean of its risks, in %.

    Geifman, Uziel and El-Yaniv (2019), "Bias-reduced uncertainty estimation for deep neural
    classifiers". It depends on the error too: 0 without errors, 100 without hits.
    """
    _, risk = risk_coverage(confidence, correct)
    return 100 * risk.mean().item()


def risk_coverage_table(confidence: torch.Tensor, correct: torch.Tensor) -> dict[str, np.ndarray]:
    """Risks in % at coverages of 1, 2, ..., 100 %: ``coverage`` and ``risk``.

    At least the coverage's share of examples is kept, and no more than it takes.
    """
    _, risk = risk_coverage(confidence, correct)
    coverage = torch.arange(1, 101, device=risk.device)
    kept = (coverage * len(risk) + 99) // 100
    return {
        "coverage": coverage.double().cpu().numpy(),
        "risk": 100 * risk[kept - 1].cpu().numpy(),
    }


def _counts(scores: torch.Tensor, is_positive: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Numbers of true and false positives from the highest threshold down, float64; 0 first."""
    if scores.ndim != 1 or scores.shape != is_positive.shape or not len(scores):
        shapes = f"{tuple(scores.shape)} and {tuple(is_positive.shape)}"
        raise ValueError(f"scores and labels must be (n,) with n >= 1, but are {shapes}")
    if scores.isnan().any():
        raise DivergedError(f"scores must be numbers, but {int(scores.isnan().sum())} are NaN")
    ordered, order = scores.detach().sort(descending=True)
    is_last = torch.cat([ordered[1:] != ordered[:-1], ordered.new_ones(1, dtype=torch.bool)])
    n_found = is_last.nonzero().squeeze(-1) + 1
    true = is_positive.bool()[order].double().cumsum(0)[n_found - 1]
    start = true.new_zeros(1)
    return torch.cat([start, true]), torch.cat([start, n_found - true])
