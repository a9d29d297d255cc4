"""Samples of two weights over the contours of their exact posterior."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bhnbench.contract import Outcome
from bhnbench_tasks.figures.panels import Outcomes, count_seeds, make_panels, with_styles
from bhnbench_tasks.product_posterior import ProductPosterior

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

N_GRID = 200
MASSES = (0.99, 0.9, 0.5)  # within the contours
SHOWN = 0.65  # of what is in sight of the exact posterior: little is beyond


def draw_posterior(outcomes: Outcomes) -> Figure:
    """One panel a method: its samples, the exact posterior's contours, and b = 1/a."""
    n_shown = sum(1 for runs in outcomes.values() if runs)
    figure, panels = make_panels(n_shown, width=3.2, height=3.2, share_y=True)
    for axes, (label, runs, style) in zip(panels, with_styles(outcomes), strict=False):
        _draw(axes, runs[0], style.colour)
        mass = np.mean([run.scores["smaller_mode_mass"] for run in runs])
        text = f"smaller mode\n{mass:.0f} %"
        axes.text(0.03, 0.97, text, va="top", transform=axes.transAxes)  # beside the upper branch
        axes.set_title(label)
    if n_shown:
        handles = panels[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=3)
        figure.suptitle(
            "samples of the first seed; contours hold 50, 90 and 99 % of the exact posterior\n"
            f"smaller mode: samples in the mode with fewer, mean over {count_seeds(outcomes)}",
            fontsize="medium",
        )
    return figure


def _draw(axes: Axes, run: Outcome, colour: str) -> None:
    exact = ProductPosterior.from_table(run.tables["posterior"])
    limit = SHOWN * exact.limit
    grid = exact.grid(N_GRID)
    axis = grid[:, 0, 0].numpy()
    levels = [exact.log_density_at_mass(mass) for mass in MASSES]
    density = exact.log_density(grid).mT.numpy()  # rows are b
    axes.contour(
        axis, axis, density, levels=levels, colors="black", linewidths=0.6, linestyles="-"
    )
    branch = np.linspace(1 / limit, limit, 100)
    for sign, label in ((1, "b = 1/a"), (-1, None)):
        axes.plot(sign * branch, sign / branch, "--", color="C3", linewidth=1, label=label)
    samples = run.tables["samples"]
    axes.plot(
        samples["a"], samples["b"], "o",
        color=colour, markersize=2.5, alpha=0.5, markeredgewidth=0,
    )  # fmt: skip
    axes.plot([], [], "o", color="0.3", markersize=3, label="posterior samples")
    axes.plot([], [], "-", color="black", linewidth=0.7, label="exact posterior")
    axes.set(xlim=(-limit, limit), ylim=(-limit, limit), xlabel="a", ylabel="b", aspect="equal")
    axes.grid(alpha=0.3)
