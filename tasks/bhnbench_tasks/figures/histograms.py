"""Histograms of an uncertainty score: of what should be found, and of the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bhnbench.contract import Outcome
from bhnbench_tasks.figures.panels import (
    COLOURS,
    Outcomes,
    add_legend,
    count_seeds,
    label_outer,
    make_panels,
)
from bhnbench_tasks.scores import SCORES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SMALLEST = 0.01  # % of images: where the logarithmic axis starts
_TICKS = (0, 0.05, 0.25, 0.5, 1)


@dataclass(frozen=True)
class DrawHistograms:
    """One panel a method: the score that it is ranked by, the mean over seeds.

    Seeds that chose another score than most count with this one too, so that means are of one
    score. Picklable and comparable, as a class attribute of a task should be.
    """

    positives: str  # what the detector should find
    others: str

    def __call__(self, outcomes: Outcomes) -> Figure:
        """The figure; methods without runs are left out."""
        shown = {label: runs for label, runs in outcomes.items() if runs}
        figure, panels = make_panels(len(shown), share_y=True)
        for axes, (label, runs) in zip(panels, shown.items(), strict=False):
            self._draw(axes, label, runs)
        if shown:
            label_outer(panels)
            figure.suptitle(f"mean over {count_seeds(outcomes)}", fontsize="medium")
            add_legend(figure, *panels[0].get_legend_handles_labels())
        return figure

    def _draw(self, axes: Axes, label: str, runs: Sequence[Outcome]) -> None:
        name = most_chosen(runs)
        tables = [run.tables["histogram"] for run in runs]
        edges = np.append(tables[0]["low"], 1)
        axes.set_xscale("function", functions=(_root, np.square))  # as wide as the bins
        for column, group, colour in (
            ("other", self.others, COLOURS[0]),
            ("positive", self.positives, COLOURS[1]),
        ):
            share = np.mean([table[f"{name}_{column}"] for table in tables], axis=0)
            axes.stairs(share, edges, fill=True, color=colour, alpha=0.25)
            axes.stairs(share, edges, color=colour, label=group)
        axes.set(
            title=f"{label}\n{name.replace('_', ' ')}",
            xlabel="score, as a share of the largest possible",
            ylabel="images (%)",
            yscale="log",
            xlim=(0, 1),
            ylim=(_SMALLEST, 100),
        )
        axes.set_xticks(_TICKS, [f"{tick:g}" for tick in _TICKS])
        axes.grid(alpha=0.3)


def _root(x: np.ndarray) -> np.ndarray:
    root: np.ndarray = np.sqrt(np.maximum(x, 0))  # an axis asks for values below 0 too
    return root


def most_chosen(runs: Sequence[Outcome]) -> str:
    """The score that most runs are ranked by, the first of equals."""
    votes = np.sum([run.tables["scores"]["chosen"] for run in runs], axis=0)
    return list(SCORES)[int(np.argmax(votes))]
