"""Figures drawn from the tables of many runs: outcomes by method label, one outcome a seed.

Nothing here touches matplotlib's global state, and importing this module does not import it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from bhnbench.contract import Outcome

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Outcomes = Mapping[str, Sequence[Outcome]]


def draw_learning_curve(outcomes: Outcomes) -> Figure:
    """Mean accuracy over seeds against labels, with a 95 % t interval where there are seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for label, runs in outcomes.items():
        curves = [run.tables["learning_curve"] for run in runs]
        if not curves:
            continue
        mean, half_width = _interval(np.stack([curve["accuracy"] for curve in curves]))
        n_labels = curves[0]["n_labels"]
        (line,) = axes.plot(n_labels, mean, marker="o", markersize=3, label=label)
        low, high = np.clip([mean - half_width, mean + half_width], 0, 100)
        axes.fill_between(n_labels, low, high, color=line.get_color(), alpha=0.15)
    axes.set(xlabel="labels", ylabel="accuracy (%)", title=_seeds(outcomes))
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(loc="lower right")
    return figure


def draw_predictive_bands(outcomes: Outcomes) -> Figure:
    """One panel a method: mean, 2 sd of the mean function, 2 sd in all; its first seed."""
    from matplotlib.figure import Figure

    shown = {label: runs[0] for label, runs in outcomes.items() if runs}
    n_columns = max(len(shown), 1) if len(shown) <= 3 else math.ceil(math.sqrt(len(shown)))
    n_rows = max(-(-len(shown) // n_columns), 1)
    size = (1 + 3.5 * n_columns, 0.8 + 3 * n_rows)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(n_rows, n_columns, sharey=True, squeeze=False)
    for axes, (label, run) in zip(grid.flat, shown.items(), strict=False):
        _draw_band(axes, label, run)
    for axes in grid.flat[len(shown) :]:
        axes.set_visible(False)
    if shown:
        figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    for row in grid:
        row[0].set_ylabel("y")
    return figure


def _draw_band(axes: Axes, label: str, run: Outcome) -> None:
    band, points = run.tables["predictive_band"], run.tables["training_points"]
    x, mean = band["x"], band["mean"]
    for sd, alpha, name in (
        ("sd", 0.15, "± 2 sd, noise included"),
        ("mean_sd", 0.35, "± 2 sd of the mean function"),
    ):
        low, high = mean - 2 * band[sd], mean + 2 * band[sd]
        axes.fill_between(x, low, high, color="C0", alpha=alpha, linewidth=0, label=name)
    axes.plot(x, mean, color="C0", label="mean")
    axes.plot(points["x"], points["y"], "x", color="black", markersize=3, label="training points")
    axes.set(
        title=label,
        xlim=(x[0], x[-1]),
        ylim=(-1.5, 2.5),
        xlabel="x",
        xticks=np.linspace(x[0], x[-1], 5),
    )
    axes.grid(alpha=0.3)


def _interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and half-width of its 95 % interval over the first dimension (seeds)."""
    from scipy.stats import t

    n = len(values)
    if n == 1:
        return values[0], np.zeros_like(values[0])
    half_width = t.ppf(0.975, n - 1) * values.std(0, ddof=1) / np.sqrt(n)
    return values.mean(0), half_width


def _seeds(outcomes: Outcomes) -> str:
    counts = {len(runs) for runs in outcomes.values() if runs} or {0}
    if counts == {1}:
        return "one seed"
    spread = " to ".join(str(n) for n in sorted({min(counts), max(counts)}))
    return f"mean and 95 % interval over {spread} seeds"
