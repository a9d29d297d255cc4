"""The clock of one run: fitting and scoring apart, waiting not at all."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Runs from its making; both readings in seconds."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._fit_seconds = 0.0
        self._fit_started: float | None = None

    @property
    def fit_seconds(self) -> float:
        """Time spent fitting."""
        if self._fit_started is None:
            return self._fit_seconds
        return self._fit_seconds + time.perf_counter() - self._fit_started

    @property
    def score_seconds(self) -> float:
        """Time spent on everything else."""
        return time.perf_counter() - self._started - self.fit_seconds

    @contextmanager
    def fitting(self) -> Iterator[None]:
        """The time within counts as fitting."""
        self._fit_started = time.perf_counter()
        try:
            yield
        finally:
            self._fit_seconds, self._fit_started = self.fit_seconds, None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The time within does not count."""
        paused = time.perf_counter()
        try:
            yield
        finally:
            waited = time.perf_counter() - paused
            self._started += waited
            if self._fit_started is not None:
                self._fit_started += waited

    def go_on_from(self, fit_seconds: float, score_seconds: float) -> None:
        """Add what an earlier process spent on the same run."""
        self._started -= fit_seconds + score_seconds
        self._fit_seconds += fit_seconds
