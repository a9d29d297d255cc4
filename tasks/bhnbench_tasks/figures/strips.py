"""Strips: one point a split and method, with the mean over splits; one panel a quantity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bhnbench_tasks.figures.lines import Panel
from bhnbench_tasks.figures.panels import (
    Outcomes,
    interval,
    make_panels,
    with_styles,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 0.5  # of a strip; methods are one apart


@dataclass(frozen=True)
class DrawStrips:
    """Draws columns of a table, whose rows are splits, as strips of points.

    A point is a split, its seeds averaged; splits keep their place in every strip. The bar is the
    mean over splits with its 95 % t interval.
    """

    table: str
    panels: tuple[Panel, ...]

    def __call__(self, outcomes: Outcomes) -> Figure:
        """The figure; methods without runs are left out."""
        n_methods = sum(1 for runs in outcomes.values() if runs)
        width = max(3.5, 0.8 * n_methods)
        figure, axes = make_panels(len(self.panels), width=width, height=3.4)
        for panel, place in zip(self.panels, axes, strict=True):
            self._draw(place, panel, outcomes)
        figure.suptitle(
            "points are splits, seeds averaged; mean and 95 % interval over splits",
            fontsize="medium",
        )
        return figure

    def _draw(self, axes: Axes, panel: Panel, outcomes: Outcomes) -> None:
        labels = []
        for x, (label, runs, style) in enumerate(with_styles(outcomes)):
            values = np.mean([run.tables[self.table][panel.column] for run in runs], axis=0)
            places = x + WIDTH * (np.linspace(-0.5, 0.5, len(values)) if len(values) > 1 else 0)
            axes.plot(
                places + np.zeros(len(values)), values, "o",
                color=style.colour, markersize=4, alpha=0.5, markeredgewidth=0,
            )  # fmt: skip
            mean, half_width = interval(values)
            axes.errorbar(
                x, mean, half_width, fmt="_", color="black", markersize=14, capsize=4, zorder=3
            )
            labels.append(label)
        axes.set_xticks(range(len(labels)), labels, rotation=30, ha="right")
        axes.set_ylabel(panel.label)
        axes.grid(axis="y", alpha=0.3)
