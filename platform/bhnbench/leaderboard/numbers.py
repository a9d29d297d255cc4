"""Numbers for people: as many digits as the interval supports."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from bhnbench.space import Value
from bhnbench.statistics import Summary
from bhnbench.yaml_text import in_short

MAX_DECIMALS = 6  # below that, powers of ten read better


def estimate(summary: Summary, *, signed: bool = False) -> str:
    """Mean and half-width of its interval, to two significant digits of the half-width."""
    sign = "+" if signed else ""
    width = summary.half_width
    if not width:
        return f"{summary.mean:{sign}.4g}" + (" ± 0" if width == 0 else "")
    decimals = max(0, 1 - math.floor(math.log10(width)))
    if decimals > MAX_DECIMALS:
        return f"{summary.mean:{sign}.4g} ± {width:.2g}"
    return f"{summary.mean:{sign}z.{decimals}f} ± {width:.{decimals}f}"


def p_value(value: float | None) -> str:
    """A p-value; "?" where there is none."""
    if value is None:
        return "?"
    return "<0.001" if value < 0.001 else f"{value:.2g}"


def duration(seconds: float | None) -> str:
    """Seconds in a readable unit."""
    if seconds is None:
        return ""
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"


def memory(megabytes: float | None) -> str:
    """Megabytes."""
    return "" if megabytes is None else f"{megabytes:.0f} MB"


def settings(values: Mapping[str, Value]) -> str:
    """Hyperparameters in short: "rate=0.2, flow=iaf"."""
    return ", ".join(f"{name}={_short(value)}" for name, value in values.items())


def _short(value: Value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else in_short(value)


def id_ranges(ids: Iterable[int]) -> str:
    """Run ids in short: "3-5, 9"."""
    ranges: list[list[int]] = []
    for number in sorted(ids):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in ranges)
