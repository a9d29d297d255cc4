"""Predictive bands of a regression in one dimension."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bhnbench.contract import Outcome
from bhnbench_tasks.figures.panels import Outcomes, label_outer, make_panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARGIN = 0.3  # of the range of the curve and its data, above and below


def draw_predictive_bands(outcomes: Outcomes) -> Figure:
    """One panel a method: mean, 2 sd of the mean function, 2 sd in all; its first seed."""
    shown = {label: runs[0] for label, runs in outcomes.items() if runs}
    figure, panels = make_panels(len(shown), share_y=True)
    for axes, (label, run) in zip(panels, shown.items(), strict=False):
        _draw_band(axes, label, run)
        axes.set_ylabel("y")
    if shown:
        label_outer(panels)
        panels[0].set_ylim(_limits(list(shown.values())))  # of all panels, which share it
        handles = panels[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=3)
        figure.suptitle("first seed", fontsize="medium")
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
    axes.plot(x, band["truth"], "--", color="C3", linewidth=1, label="curve without noise")
    axes.plot(points["x"], points["y"], "x", color="black", markersize=3, label="training points")
    axes.set(title=label, xlim=(x[0], x[-1]), xlabel="x", xticks=np.linspace(x[0], x[-1], 5))
    axes.grid(alpha=0.3)


def _limits(runs: list[Outcome]) -> tuple[float, float]:
    """What holds the curve and its data: bands may leave it."""
    columns = (("predictive_band", "truth"), ("training_points", "y"))
    values = np.concatenate([run.tables[table][name] for run in runs for table, name in columns])
    low, high = values.min(), values.max()
    margin = MARGIN * (high - low)
    return low - margin, high + margin
