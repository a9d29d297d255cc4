"""Curves: one line a method, the mean over seeds with its interval; one panel a quantity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bhnbench_tasks.figures.panels import (
    Outcomes,
    add_legend,
    interval,
    make_panels,
    seeds_title,
    with_styles,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REFERENCE: Mapping[str, Any] = {"color": "gray", "linestyle": ":", "linewidth": 1}


@dataclass(frozen=True)
class Panel:
    """One quantity: a column of the table, the label of its axis, the values it can take."""

    column: str
    label: str
    low: float = -np.inf
    high: float = np.inf
    title: str = ""
    table: str = ""  # where it is another one than the figure's
    guess: float | None = None  # what guessing gets, drawn as a line


@dataclass(frozen=True)
class DrawLines:
    """Draws columns of a table against another column of it.

    All runs must have the same values of ``x``. Picklable and comparable, as a class attribute
    of a task should be.
    """

    table: str
    x: str
    x_label: str
    panels: tuple[Panel, ...]
    x_scale: str = "linear"  # as matplotlib calls them: "log", "symlog"
    linear_below: float = 1.0  # where "symlog" ends to be linear
    marker: str = "o"
    diagonal: str = ""  # names the line from 0 to 100 % of both axes, where it means something

    def __call__(self, outcomes: Outcomes) -> Figure:
        """The figure; methods without runs are left out."""
        width, height = (6.0, 3.7) if len(self.panels) == 1 else (3.5, 3.0)
        figure, axes = make_panels(len(self.panels), width=width, height=height)
        for panel, place in zip(self.panels, axes, strict=True):
            self._draw(place, panel, outcomes)
        figure.suptitle(seeds_title(outcomes), fontsize="medium")
        handles, labels = axes[0].get_legend_handles_labels()
        if len(self.panels) == 1 and handles:
            axes[0].legend(loc="best")
        elif handles:
            add_legend(figure, handles, labels)
        return figure

    def _draw(self, axes: Axes, panel: Panel, outcomes: Outcomes) -> None:
        if self.diagonal:
            axes.plot([0, 100], [0, 100], **REFERENCE, label=self.diagonal)
        if panel.guess is not None:
            axes.axhline(panel.guess, **REFERENCE, label="random")
        for label, runs, style in with_styles(outcomes):
            tables = [run.tables[panel.table or self.table] for run in runs]
            x = tables[0][self.x]
            mean, half_width = interval(np.stack([table[panel.column] for table in tables]))
            axes.plot(
                x, mean, color=style.colour, linestyle=style.line, linewidth=style.width,
                marker=self.marker, markersize=1 + style.width, label=label,
            )  # fmt: skip
            low, high = np.clip([mean - half_width, mean + half_width], panel.low, panel.high)
            axes.fill_between(x, low, high, color=style.colour, alpha=0.15, linewidth=0)
        axes.set(xlabel=self.x_label, ylabel=panel.label, title=panel.title)
        options = {"linthresh": self.linear_below} if self.x_scale == "symlog" else {}
        axes.set_xscale(self.x_scale, **options)
        axes.grid(alpha=0.3)


draw_learning_curve = DrawLines(
    "learning_curve", "n_labels", "labels", (Panel("accuracy", "accuracy (%)", 0, 100),)
)
