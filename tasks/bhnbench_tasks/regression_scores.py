"""Scores of a regression's predictive mixture, the same in every task that has one."""

from __future__ import annotations

import math

import torch

from bhnbench import metrics
from bhnbench.calibration import (
    CALIBRATION_ERROR,
    COVERAGE_ERROR_50,
    COVERAGE_ERROR_90,
    calibration_scores,
)
from bhnbench.contract import Table
from bhnbench.metrics import LOG_LIKELIHOOD, RMSE
from bhnbench_tasks.figures.lines import DrawLines, Panel

METRICS = (LOG_LIKELIHOOD, RMSE, COVERAGE_ERROR_50, COVERAGE_ERROR_90, CALIBRATION_ERROR)

draw_calibration = DrawLines(
    "calibration",
    "expected",
    "expected share of targets below a quantile (%)",
    (Panel("observed", "observed share (%)", 0, 100),),
    marker="",
    diagonal="calibrated",
)


def regression_scores(
    means: torch.Tensor, sds: torch.Tensor, targets: torch.Tensor
) -> tuple[dict[str, float], Table]:
    """The value of each of ``METRICS``, in the unit of the targets, and the calibration diagram.

    Args:
        means: of the mixture's Gaussians, one a posterior sample: ``(n_samples, n, 1)`` float64.
        sds: their standard deviations, of the same shape.
        targets: ``(n, 1)``.
    """
    standardised = (targets - means) / sds
    log_densities = -0.5 * standardised.square() - sds.log() - 0.5 * math.log(2 * math.pi)
    scores, table = calibration_scores(means, sds, targets)
    return {
        "log_likelihood": metrics.mixture_log_likelihood(log_densities.squeeze(-1)),
        "rmse": metrics.rmse(means.mean(0), targets),
        **scores,
    }, table
