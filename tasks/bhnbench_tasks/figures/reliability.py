"""Reliability diagrams: how often a classifier is right, against how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bhnbench.contract import Outcome
from bhnbench_tasks.figures.panels import Outcomes, label_outer, make_panels, with_styles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Z = 1.959964  # of a 95 % interval


def draw_reliability(outcomes: Outcomes) -> Figure:
    """One panel a method: accuracy against confidence, and the share of examples in each bin.

    Seeds are pooled. An interval is that of an accuracy over one seed's examples in the bin, as
    seeds score the same ones. Guo et al. (2017), "On calibration of modern neural networks",
    figure 1.
    """
    shown = list(with_styles(outcomes))
    figure, panels = make_panels(len(shown), width=3.4, height=3.2, share_y=True)
    for axes, (label, runs, style) in zip(panels, shown, strict=False):
        _draw(axes, runs, style.colour)
        axes.set_title(label)
    if shown:
        label_outer(panels)
        handles = panels[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=2)
        counts = sorted({len(runs) for _, runs, _ in shown})
        seeds = " to ".join(str(n) for n in counts[:1] + counts[1:][-1:])
        figure.suptitle(f"seeds pooled: {seeds}", fontsize="medium")
    return figure


def _draw(axes: Axes, runs: Sequence[Outcome], colour: str) -> None:
    n, confidence, accuracy = pool(runs)
    edges = np.linspace(0, 100, len(n) + 1)
    axes.plot([0, 100], [0, 100], "--", color="grey", linewidth=1, label="calibrated")
    share = 100 * n / n.sum()
    axes.bar(
        edges[:-1], share, np.diff(edges), align="edge",
        color="lightgrey", edgecolor="white", label="share of examples",
    )  # fmt: skip
    filled = n > 0
    low, high = wilson(accuracy[filled], n[filled] / len(runs))
    axes.vlines(confidence[filled], low, high, color=colour, alpha=0.5)
    axes.plot(
        confidence[filled], accuracy[filled], "o",
        color=colour, markersize=4, label="accuracy of a bin, 95 % interval",
    )  # fmt: skip
    axes.set(
        xlabel="confidence (%)", ylabel="accuracy (%), share (%)", xlim=(0, 100), ylim=(0, 102)
    )
    axes.grid(alpha=0.3)


def pool(runs: Sequence[Outcome]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Examples of all runs in each bin, and their mean confidence and accuracy in %."""
    tables = [run.tables["reliability"] for run in runs]
    counts = np.stack([table["n"] for table in tables])
    total = counts.sum(0)
    weights = counts / np.maximum(total, 1)
    confidence, accuracy = (
        (weights * np.stack([table[name] for table in tables])).sum(0)
        for name in ("confidence", "accuracy")
    )
    return total, confidence, accuracy


def wilson(percentage: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % interval of Wilson (1927) of a percentage that is found in ``n`` trials, in %."""
    p = percentage / 100
    centre = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half_width = Z / (1 + Z**2 / n) * np.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    return 100 * (centre - half_width), 100 * (centre + half_width)
