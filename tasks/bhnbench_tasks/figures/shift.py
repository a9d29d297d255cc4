"""Scores against the severity of corruptions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bhnbench_tasks.figures.lines import DrawLines, Panel
from bhnbench_tasks.figures.panels import Outcomes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

draw_shift = DrawLines(
    "mean",
    "severity",
    "severity (mean over corruptions)",
    (
        Panel("nll", "nll (nats)", low=0),
        Panel("accuracy", "accuracy (%)", low=0, high=100),
        Panel("ece", "calibration error (%)", low=0, high=100),
    ),
)


def draw_corruptions(outcomes: Outcomes) -> Figure:
    """Log loss against severity, one panel a corruption."""
    tables = next((runs[0].tables for runs in outcomes.values() if runs), {})
    names = [name for name in tables if name != "mean"] or ["mean"]
    panels = tuple(
        Panel("nll", "nll (nats)", low=0, title=name.replace("_", " "), table=name)
        for name in names
    )
    return DrawLines("mean", "severity", "severity", panels)(outcomes)
