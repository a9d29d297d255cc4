"""Bars: one group a row of a table, one bar a method, with the interval over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bhnbench.contract import Outcome
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

WIDTH = 0.8  # of a group; groups are one apart
HATCHES = {"-": "", "--": "//", ":": ".."}  # for the same colour again


@dataclass(frozen=True)
class DrawBars:
    """Draws one column of a table; its rows are the groups.

    All runs must have as many rows. Picklable and comparable, as a class attribute of a task
    should be.
    """

    table: str
    column: str
    label: str  # of the axis
    groups: str | tuple[str, ...]  # names, or "layer {}" for "layer 1", "layer 2", ...
    low: float = 0.0
    high: float | None = None
    note: str = ""  # what the legend adds, as "{compression:.0f}x": means of scores

    def __call__(self, outcomes: Outcomes) -> Figure:
        """The figure; methods without runs are left out."""
        shown = list(with_styles(outcomes))
        n_groups = max((self._values(runs).shape[1] for _, runs, _ in shown), default=0)
        width = max(5.0, 0.45 * n_groups * len(shown))
        figure, (axes,) = make_panels(1, width=width, height=3.4)
        width = WIDTH / max(len(shown), 1)  # of a bar
        for place, (label, runs, style) in enumerate(shown):
            mean, half_width = interval(self._values(runs))
            at = np.arange(len(mean)) + (place - (len(shown) - 1) / 2) * width
            axes.bar(
                at, mean, width, yerr=half_width, color=style.colour, hatch=HATCHES[style.line],
                edgecolor="white", linewidth=0.5, ecolor="0.4", label=self._legend(label, runs),
            )  # fmt: skip
            for x, height, top in zip(at, mean, mean + half_width, strict=True):
                axes.text(x, top, f"{height:.3g}", ha="center", va="bottom", fontsize=7)
        self._finish(axes, n_groups)
        figure.suptitle(seeds_title(outcomes), fontsize="medium")
        if shown:
            add_legend(figure, *axes.get_legend_handles_labels())
        return figure

    def _values(self, runs: Sequence[Outcome]) -> np.ndarray:
        return np.stack([run.tables[self.table][self.column] for run in runs])

    def _legend(self, label: str, runs: Sequence[Outcome]) -> str:
        if not self.note:
            return label
        means = {name: np.mean([run.scores[name] for run in runs]) for name in runs[0].scores}
        return f"{label} ({self.note.format(**means)})"

    def _names(self, n: int) -> Sequence[str]:
        if isinstance(self.groups, tuple):
            return self.groups[:n]
        return [self.groups.format(i + 1) for i in range(n)]

    def _finish(self, axes: Axes, n_groups: int) -> None:
        axes.set_xticks(range(n_groups), self._names(n_groups))
        top = axes.get_ylim()[1] if self.high is None else self.high
        axes.set_ylim(self.low, self.low + 1.08 * (top - self.low))  # room for the numbers
        axes.set_ylabel(self.label)
        axes.grid(axis="y", alpha=0.3)
        axes.set_axisbelow(True)
