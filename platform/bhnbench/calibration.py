"""How honest a regression's predictive distribution is: CRPS, coverage, calibration.

The predictive is an equal mixture of Gaussians, one a posterior sample, as ``Gaussian.split``
gives them: ``means`` and ``sds`` are ``(n_samples, *shape)`` for ``targets`` of any ``shape``.
Each target is scored by itself. A scale of 0 is a point mass.

Every function raises ValueError where shapes do not fit or there are no targets, and
DivergedError where a number is not finite.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from bhnbench.contract import Metric
from bhnbench.errors import DivergedError
from bhnbench.mixture_distance import mean_abs, mean_distance

if TYPE_CHECKING:
    import numpy as np

CRPS = Metric("crps", "minimize", "", "continuous ranked probability score, in the targets' unit")
COVERAGE_ERROR_50 = Metric(
    "coverage_error_50", "minimize", "%", "distance to 50 % of what central 50 % intervals cover"
)
COVERAGE_ERROR_90 = Metric(
    "coverage_error_90", "minimize", "%", "distance to 90 % of what central 90 % intervals cover"
)
CALIBRATION_ERROR = Metric(
    "calibration_error", "minimize", "%", "mean distance of observed to expected quantile levels"
)

_N_LEVELS = 99  # 1, 2, ..., 99 %


def crps_mixture(means: torch.Tensor, sds: torch.Tensor, targets: torch.Tensor) -> float:
    """Mean continuous ranked probability score of the mixture, in the targets' unit.

    E|X - y| - E|X - X'| / 2: Grimit, Gneiting, Berrocal and Johnson (2006), "The continuous ranked
    probability score for circular variables and its application to mesoscale forecast ensemble
    verification", equation 5. Both terms are exact to rounding.
    """
    means, sds, targets = _flat(means, sds, targets)
    variances = sds.square()
    from_targets = mean_abs(means - targets, variances).mean(0)
    return (from_targets - 0.5 * mean_distance(means, variances)).mean().item()


def coverage(means: torch.Tensor, sds: torch.Tensor, targets: torch.Tensor, level: float) -> float:
    """Share of targets within the mixture's central interval of mass ``level``, in %."""
    return _coverage(pit(means, sds, targets), level)


def coverage_error(
    means: torch.Tensor, sds: torch.Tensor, targets: torch.Tensor, level: float
) -> float:
    """Distance of the coverage to ``level``, in %; a coverage has no better direction."""
    return _coverage_error(pit(means, sds, targets), level)


def calibration_error(means: torch.Tensor, sds: torch.Tensor, targets: torch.Tensor) -> float:
    """Mean absolute distance of observed to expected quantile levels, in %.

    Over the levels of ``calibration_table``. Kuleshov, Fenner and Ermon (2018), "Accurate
    uncertainties for deep learning using calibrated regression", sum squares over few levels.
    """
    return _calibration_error(calibration_table(means, sds, targets))


def calibration_table(
    means: torch.Tensor, sds: torch.Tensor, targets: torch.Tensor
) -> dict[str, np.ndarray]:
    """Quantile levels 1, 2, ..., 99 % and the shares of targets below them: the diagram's curve.

    Returns:
        ``expected`` and ``observed``, in %.
    """
    return _table(pit(means, sds, targets))


def calibration_scores(
    means: torch.Tensor, sds: torch.Tensor, targets: torch.Tensor
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """The coverage errors, the calibration error and its table, from one pass over the mixture."""
    values = pit(means, sds, targets)
    table = _table(values)
    scores = {
        COVERAGE_ERROR_50.name: _coverage_error(values, 0.5),
        COVERAGE_ERROR_90.name: _coverage_error(values, 0.9),
        CALIBRATION_ERROR.name: _calibration_error(table),
    }
    return scores, table


def pit(means: torch.Tensor, sds: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Probability integral transform: the mixture's CDF at each target, ``(n_targets,)`` float64.

    Uniform for a calibrated predictive (Dawid, 1984, "The prequential approach").
    """
    means, sds, targets = _flat(means, sds, targets)
    probabilities: torch.Tensor = torch.special.ndtr((targets - means) / _positive(sds))
    return probabilities.mean(0)


def _coverage(values: torch.Tensor, level: float) -> float:
    return 100 * ((values - 0.5).abs() <= level / 2).double().mean().item()


def _coverage_error(values: torch.Tensor, level: float) -> float:
    return abs(_coverage(values, level) - 100 * level)


def _table(values: torch.Tensor) -> dict[str, np.ndarray]:
    values = values.sort().values
    expected = torch.arange(1, _N_LEVELS + 1, dtype=values.dtype, device=values.device)
    n_below = torch.searchsorted(values, expected / (_N_LEVELS + 1), right=True)
    return {
        "expected": expected.cpu().numpy(),
        "observed": (100 * n_below.double() / len(values)).cpu().numpy(),
    }


def _calibration_error(table: dict[str, np.ndarray]) -> float:
    return float(abs(table["observed"] - table["expected"]).mean())


def _positive(sd: torch.Tensor) -> torch.Tensor:
    return sd.clamp(min=torch.finfo(sd.dtype).tiny)


def _flat(
    means: torch.Tensor, sds: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Means and scales ``(n_samples, n_targets)`` and targets ``(n_targets,)``, in float64."""
    sds = sds.expand_as(means)
    if not means.numel() or means.shape[1:] != targets.shape:
        shapes = f"{tuple(means.shape)} and {tuple(targets.shape)}"
        raise ValueError(
            f"means must be (n_samples, *shape of targets), of one or more, but are {shapes}"
        )
    if not all(values.isfinite().all() for values in (means, sds, targets)):
        raise DivergedError("means, scales and targets must be finite, but some are not")
    means, sds, targets = (values.detach().double() for values in (means, sds, targets))
    return means.flatten(1), sds.flatten(1), targets.flatten()
