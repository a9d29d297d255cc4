"""Statistics of a few repeats: intervals of a mean, paired comparisons, Holm's correction.

A leaf: importing it imports neither numpy nor scipy, which come when a quantile is needed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

LEVEL = 0.95
ROUNDING = 1e-9  # of scores, relative to them: far above that of float64, below any step

K = TypeVar("K")


@dataclass(frozen=True)
class Summary:
    """Mean of ``n`` repeats and how far it can be trusted.

    ``sd`` (denominator n - 1) and the 95 % interval ``[low, high]`` of the mean are None for a
    single repeat: one number says nothing about its own spread, and a made-up width of zero
    would read as certainty.
    """

    mean: float
    sd: float | None
    low: float | None
    high: float | None
    n: int

    @property
    def half_width(self) -> float | None:
        """Half the width of the interval."""
        return None if self.sd is None else _half_width(self.sd, self.n)


@dataclass(frozen=True)
class Comparison:
    """Paired differences of two methods over the repeats that both have.

    ``p_value`` is two-sided; None where fewer than two pairs exist, so that nothing can be said.
    """

    difference: Summary
    p_value: float | None


def summarize(values: Sequence[float]) -> Summary:
    """Mean and its 95 % Student-t interval, ``mean +- t(0.975, n - 1) sd / sqrt(n)``.

    Args:
        values: one or more finite numbers, independent repeats of the same thing.

    Raises:
        ValueError: there are none.
    """
    n = len(values)
    if n == 0:
        raise ValueError("a summary needs at least one value, but got none")
    mean = math.fsum(values) / n
    if n == 1:
        return Summary(mean, None, None, None, 1)
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half_width = _half_width(sd, n)
    return Summary(mean, sd, mean - half_width, mean + half_width, n)


def paired_difference(a: Mapping[K, float], b: Mapping[K, float]) -> Comparison | None:
    """``a - b`` over the keys (seeds) that both have, with the paired t test's p-value.

    A seed fixes data, order and initialisation for every method (common random numbers), so
    what it adds to both cancels in the difference. Differences that are all equal, but for the
    rounding of the scores, have no spread to compare with (scores come in steps): p is then the
    sign test's, ``2 / 2**n``, or 1 for 0.

    Returns:
        The comparison, or None without a common key.
    """
    common = [key for key in a if key in b]
    if not common:
        return None
    scale = max(abs(scores[key]) for scores in (a, b) for key in common)
    difference = _without_rounding(summarize([a[key] - b[key] for key in common]), scale)
    return Comparison(difference, _p_value(difference))


def _without_rounding(difference: Summary, scale: float) -> Summary:
    """With a mean and a spread of 0 where they are no more than the rounding of the scores."""
    if difference.sd is None or difference.sd > ROUNDING * scale:
        return difference
    mean = difference.mean if abs(difference.mean) > ROUNDING * scale else 0.0
    return Summary(mean, 0.0, mean, mean, difference.n)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) step-down adjusted p-values: those below 0.05 hold together at 95 %.

    With p-values ascending, ``p~_i = max_{j <= i} min(1, (m - j + 1) p_j)``.
    """
    adjusted = [1.0] * len(p_values)
    floor = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        floor = max(floor, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = floor
    return adjusted


def _half_width(sd: float, n: int) -> float:
    from scipy.special import stdtrit  # scipy.stats costs a second to import

    return float(stdtrit(n - 1, (1 + LEVEL) / 2)) * sd / math.sqrt(n)


def _p_value(difference: Summary) -> float | None:
    from scipy.special import stdtr

    if difference.sd is None:
        return None
    if difference.sd == 0:
        return 1.0 if difference.mean == 0 else 2.0 ** (1 - difference.n)
    t = difference.mean / (difference.sd / math.sqrt(difference.n))
    return float(2 * stdtr(difference.n - 1, -abs(t)))
