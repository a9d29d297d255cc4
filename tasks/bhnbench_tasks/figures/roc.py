"""ROC and risk-coverage curves: one line a method, the mean over seeds with its interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bhnbench_tasks.figures.lines import DrawLines, Panel
from bhnbench_tasks.figures.panels import Outcomes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class DrawRoc(DrawLines):
    """ROC curves, and the diagonal of a detector that guesses."""

    def _draw(self, axes: Axes, panel: Panel, outcomes: Outcomes) -> None:
        axes.plot([0, 100], [0, 100], color="gray", linestyle=":", linewidth=1, label="random")
        super()._draw(axes, panel, outcomes)


draw_roc = DrawRoc(
    "roc",
    "fpr",
    "false positive rate (%)",
    (Panel("tpr", "true positive rate (%)", 0, 100),),
    marker="",
)
draw_risk_coverage = DrawLines(
    "risk_coverage",
    "coverage",
    "coverage: images answered, most confident first (%)",
    (Panel("risk", "risk: errors among them (%)", 0, 100),),
    marker="",
)
