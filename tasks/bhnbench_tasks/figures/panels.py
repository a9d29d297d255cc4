"""What every figure needs: a grid of panels, and the mean over seeds with its interval."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bhnbench.contract import Outcome

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Outcomes = Mapping[str, Sequence[Outcome]]
# Okabe and Ito (2008), told apart by colour-blind people too; then the same, dashed.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", ":")
WIDTHS = (2.8, 1.4)  # points, of the first method's line and the last one's


def make_panels(
    n: int, *, width: float = 3.5, height: float = 3.0, share_y: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure with ``n`` panels (inches each) in rows of three or in a square; at least one."""
    from matplotlib.figure import Figure

    n = max(n, 1)
    n_columns = n if n <= 3 else math.ceil(math.sqrt(n))
    n_rows = -(-n // n_columns)
    size = (1 + width * n_columns, 0.8 + height * n_rows)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(n_rows, n_columns, sharey=share_y, squeeze=False)
    for axes in grid.flat[n:]:
        axes.set_visible(False)
    return figure, list(grid.flat[:n])


def label_outer(panels: Sequence[Axes]) -> None:
    """Leave names and numbers to the left column, and to the lowest panel of each column.

    Unlike ``Axes.label_outer``, also to one above a place that the last row leaves empty.
    """
    grid = panels[0].get_gridspec()
    n_columns = grid.ncols if grid else 1
    for place, axes in enumerate(panels):
        if place % n_columns:
            axes.tick_params(labelleft=False)
            axes.set_ylabel("")
        if place + n_columns < len(panels):
            axes.tick_params(labelbottom=False)
            axes.set_xlabel("")


class Style(NamedTuple):
    """How a method's line looks."""

    colour: str
    line: str
    width: float


def with_styles(outcomes: Outcomes) -> Iterator[tuple[str, Sequence[Outcome], Style]]:
    """Label, runs and style of each method that has runs; a method keeps its style.

    Lines become thinner, so that those drawn later do not hide equal ones.
    """
    widths = np.linspace(*WIDTHS, max(len(outcomes), 2))
    for place, (label, runs) in enumerate(outcomes.items()):
        row, column = divmod(place, len(COLOURS))
        if runs:
            yield label, runs, Style(COLOURS[column], LINES[row % len(LINES)], widths[place])


def add_legend(figure: Figure, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """One legend below all panels, in as many columns as fit."""
    characters = 9 * figure.get_figwidth()  # that stand side by side
    n_columns = int(characters / (6 + max(map(len, labels), default=0)))
    n_columns = min(max(n_columns, 1), max(len(labels), 1))
    figure.legend(handles, labels, loc="outside lower center", ncols=n_columns)


def interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and half-width of its 95 % t interval over the first dimension (seeds)."""
    from scipy.stats import t

    n = len(values)
    if n == 1:
        return values[0], np.zeros_like(values[0])
    half_width = t.ppf(0.975, n - 1) * values.std(0, ddof=1) / np.sqrt(n)
    return values.mean(0), half_width


def count_seeds(outcomes: Outcomes) -> str:
    """Such as "5 seeds", or "3 to 5 seeds" where methods have different numbers of them."""
    counts = {len(runs) for runs in outcomes.values() if runs} or {0}
    if counts == {1}:
        return "one seed"
    return f"{' to '.join(str(n) for n in sorted({min(counts), max(counts)}))} seeds"


def seeds_title(outcomes: Outcomes) -> str:
    """How many seeds a figure averages over."""
    counted = count_seeds(outcomes)
    return counted if counted == "one seed" else f"mean and 95 % interval over {counted}"
