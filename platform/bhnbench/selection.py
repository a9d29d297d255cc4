"""Which trial wins a study's search."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

from bhnbench.contract import Direction


class Scored(Protocol):
    """A trial, as far as choosing among trials goes."""

    @property
    def number(self) -> int:
        """Its place in the search."""

    @property
    def state(self) -> str:
        """How it ended."""

    @property
    def value(self) -> float | None:
        """Its validation score."""


T = TypeVar("T", bound=Scored)


def best_trial(trials: Iterable[T], direction: Direction) -> T | None:
    """The done trial of best value, the earliest among equals; None where none is done."""
    sign = -1.0 if direction == "maximize" else 1.0
    scored = [
        (sign * trial.value, trial.number, trial)
        for trial in trials
        if trial.state == "done" and trial.value is not None
    ]
    return min(scored, key=lambda entry: entry[:2])[2] if scored else None
