"""Scores of a regression's predictive mixture, the same in every task that has one."""

from __future__ import annotations

import math

import torch

from bhnbench import metrics
from bhnbench.calibration import (
    CALIBRATION_ERROR,
    COVERAGE_ERROR_50,
    COVERAGE_ERROR_90,
    calibration_error,
    coverage_error,
)
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
) -> dict[str, float]:
    """The value of each of ``METRICS``, in the unit of the targets.

    Args:
        means: of the mixture's Gaussians, one a posterior sample: ``(n_samples, n, 1)`` float64.
        sds: their standard deviations, of the same shape.
        targets: ``(n, 1)``.
    """
    standardised = (targets - means) / sds
    log_densities = -0.5 * standardised.square() - sds.log() - 0.5 * math.log(2 * math.pi)
    return {
        "log_likelihood": metrics.mixture_log_likelihood(log_densities.squeeze(-1)),
        "rmse": metrics.rmse(means.mean(0), targets),
        "coverage_error_50": coverage_error(means, sds, targets, 0.5),
        "coverage_error_90": coverage_error(means, sds, targets, 0.9),
        "calibration_error": calibration_error(means, sds, targets),
    }
