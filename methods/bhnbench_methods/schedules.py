"""How learning rate and KL weight change over a fit, as factors of its progress in [0, 1)."""

from __future__ import annotations

import math
from collections.abc import Callable

Schedule = Callable[[float], float]


def constant(_progress: float) -> float:
    """One throughout."""
    return 1.0


def tenfold_decay(progress: float) -> float:
    """From one to a tenth, evenly on a log scale."""
    return float(10**-progress)


def polynomial_decay(progress: float) -> float:
    """From one to a tenth as ``(b + t)^-0.55`` (Welling and Teh, 2011, section 5)."""
    return float((1 + (10 ** (1 / 0.55) - 1) * progress) ** -0.55)


def linear_decay(progress: float) -> float:
    """One for the first half, then linearly to zero."""
    return min(1.0, 2 * (1 - progress))


def warm_up(start: float, end: float) -> Schedule:
    """Zero up to ``start``, one from ``end`` on, linear between."""

    def weight(progress: float) -> float:
        return min(1.0, max(0.0, (progress - start) / (end - start)))

    return weight


def cool_down(start: float, end: float) -> Schedule:
    """From ``start`` to one at ``end``, evenly on a log scale, and one from there on."""

    def weight(progress: float) -> float:
        return float(start ** max(0.0, 1 - progress / end))

    return weight


def cosine_cycles(n_cycles: int) -> Schedule:
    """From one to zero along half a cosine, ``n_cycles`` times."""

    def factor(progress: float) -> float:
        return 0.5 * (1 + math.cos(math.pi * _within(progress, n_cycles)))

    return factor


def late_in_cycles(n_cycles: int, start: float) -> Schedule:
    """One in each of ``n_cycles`` cycles from its fraction ``start`` on, zero before."""

    def factor(progress: float) -> float:
        return float(_within(progress, n_cycles) >= start)

    return factor


def early_in_cycles(n_cycles: int, end: float) -> Schedule:
    """One in each of ``n_cycles`` cycles up to its fraction ``end``, zero from there on."""

    def factor(progress: float) -> float:
        return float(_within(progress, n_cycles) < end)

    return factor


def product(first: Schedule, second: Schedule) -> Schedule:
    """Both at once."""

    def factor(progress: float) -> float:
        return first(progress) * second(progress)

    return factor


def _within(progress: float, n_cycles: int) -> float:
    """Progress of the present cycle; rounding must not put its start into the one before."""
    return (progress * n_cycles + 1e-9) % 1.0
