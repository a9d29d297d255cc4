"""How honest a regression's predictive distribution is: CRPS, coverage, calibration.

The predictive is an equal mixture of Gaussians, one a posterior sample, as ``Gaussian.split``
gives them: ``means`` and ``sds`` are ``(n_samples, *shape)`` for ``targets`` of any ``shape``.
Each target is scored by itself. A scale of 0 is a point mass.

Every function raises ValueError where shapes do not fit or there are no targets, and
DivergedError where a number is not finite.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from bhnbench.contract import Metric
from bhnbench.errors import DivergedError

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
_BLOCK = 8  # samples paired with all others at once
_ELEMENTS = 2**16  # of a temporary tensor: half a MiB, so that a cache holds a few


def crps_mixture(means: torch.Tensor, sds: torch.Tensor, targets: torch.Tensor) -> float:
    """Mean continuous ranked probability score of the mixture, in the targets' unit.

    E|X - y| - E|X - X'| / 2 in closed form: Grimit, Gneiting, Berrocal and Johnson (2006), "The
    continuous ranked probability score for circular variables and its application to mesoscale
    forecast ensemble verification", equation 5. All pairs of samples are visited, in bounded
    memory: the time grows with the square of their number.
    """
    means, sds, targets = _flat(means, sds, targets)
    n = max(1, _ELEMENTS // (_BLOCK * len(means)))
    parts = torch.split(means, n, 1), torch.split(sds, n, 1), torch.split(targets, n)
    chunks = zip(*parts, strict=True)
    return sum(_crps(*chunk).sum().item() for chunk in chunks) / len(targets)


def coverage(means: torch.Tensor, sds: torch.Tensor, targets: torch.Tensor, level: float) -> float:
    """Share of targets within the mixture's central interval of mass ``level``, in %."""
    values = pit(means, sds, targets)
    return 100 * ((values - 0.5).abs() <= level / 2).double().mean().item()


def coverage_error(
    means: torch.Tensor, sds: torch.Tensor, targets: torch.Tensor, level: float
) -> float:
    """Distance of the coverage to ``level``, in %; a coverage has no better direction."""
    return abs(coverage(means, sds, targets, level) - 100 * level)


def calibration_error(means: torch.Tensor, sds: torch.Tensor, targets: torch.Tensor) -> float:
    """Mean absolute distance of observed to expected quantile levels, in %.

    Over the levels of ``calibration_table``. Kuleshov, Fenner and Ermon (2018), "Accurate
    uncertainties for deep learning using calibrated regression", sum squares over few levels.
    """
    table = calibration_table(means, sds, targets)
    return float(abs(table["observed"] - table["expected"]).mean())


def calibration_table(
    means: torch.Tensor, sds: torch.Tensor, targets: torch.Tensor
) -> dict[str, np.ndarray]:
    """Quantile levels 1, 2, ..., 99 % and the shares of targets below them: the diagram's curve.

    Returns:
        ``expected`` and ``observed``, in %.
    """
    values = pit(means, sds, targets).sort().values
    expected = torch.arange(1, _N_LEVELS + 1, dtype=values.dtype, device=values.device)
    n_below = torch.searchsorted(values, expected / (_N_LEVELS + 1), right=True)
    return {
        "expected": expected.cpu().numpy(),
        "observed": (100 * n_below.double() / len(values)).cpu().numpy(),
    }


def pit(means: torch.Tensor, sds: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Probability integral transform: the mixture's CDF at each target, ``(n_targets,)`` float64.

    Uniform for a calibrated predictive (Dawid, 1984, "The prequential approach").
    """
    means, sds, targets = _flat(means, sds, targets)
    probabilities: torch.Tensor = torch.special.ndtr((targets - means) / _positive(sds))
    return probabilities.mean(0)


def _crps(means: torch.Tensor, sds: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    distances = means - targets
    return _mean_abs(distances, sds.square()).mean(0) - 0.5 * _mean_distance(means, sds.square())


def _mean_distance(means: torch.Tensor, variances: torch.Tensor) -> torch.Tensor:
    """E|X - X'| of two draws from the mixture of each column."""
    total = means.new_zeros(means.shape[1])
    for start in range(0, len(means), _BLOCK):
        rows = slice(start, start + _BLOCK)
        distance = _mean_abs(
            means[rows, None] - means[start:], variances[rows, None] + variances[start:]
        )
        n_rows = len(distance)  # pairs beyond the block stand for their mirror images too
        total += distance[:, :n_rows].sum((0, 1)) + 2 * distance[:, n_rows:].sum((0, 1))
    return total / len(means) ** 2


def _mean_abs(mean: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    """E|X| of a Gaussian: 2 sd phi(mean / sd) + mean (2 Phi(mean / sd) - 1)."""
    width = variance.mul(2).sqrt_()
    z = mean / _positive(width)
    from_mean = z.erf().mul_(mean)
    return from_mean.addcmul_(z.square_().neg_().exp_(), width, value=1 / math.sqrt(math.pi))


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
