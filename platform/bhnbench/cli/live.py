"""What stands on a terminal while something runs, drawn anew twice a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from bhnbench.cli.options import duration
from bhnbench.runs import Point, RunResult

REFRESH_SECONDS = 0.5


@contextmanager
def shown(console: Console, render: Callable[[], RenderableType]) -> Iterator[None]:
    """Show what ``render`` returns while the block runs; without a terminal, nothing."""
    if not console.is_terminal:
        yield
        return
    rate = 1 / REFRESH_SECONDS
    with Live(console=console, get_renderable=render, refresh_per_second=rate, transient=True):
        yield


class RunProgress:
    """How long one run has been running, and what it has reported, in one line."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._started = time.monotonic()
        self._points: Sequence[Point] = ()

    def listen(self, points: Sequence[Point], _snapshot: Callable[[], RunResult]) -> None:
        """Hear the reports so far."""
        self._points = points

    def line(self) -> Text:
        """As it is now."""
        text = f"{self._name}: {duration(time.monotonic() - self._started)}"
        if self._points:
            step, _ = self._points[-1]
            text += f", step {step}: {figures(last_reported(self._points))}"
        return Text(text, no_wrap=True, overflow="ellipsis")


def last_reported(points: Sequence[Point]) -> dict[str, float]:
    """The last value of everything that was reported."""
    return {name: value for _, metrics in points for name, value in metrics.items()}


def figures(reported: Mapping[str, float]) -> str:
    """Numbers with their names."""
    return ", ".join(f"{name} {value:.4g}" for name, value in reported.items())
