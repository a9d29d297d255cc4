"""ROC and risk-coverage curves: one line a method, the mean over seeds with its interval."""

from __future__ import annotations

from bhnbench_tasks.figures.lines import DrawLines, Panel

draw_roc = DrawLines(
    "roc",
    "fpr",
    "false positive rate (%)",
    (Panel("tpr", "true positive rate (%)", 0, 100),),
    marker="",
    diagonal="random",
)
draw_risk_coverage = DrawLines(
    "risk_coverage",
    "coverage",
    "coverage: images answered, most confident first (%)",
    (Panel("risk", "risk: errors among them (%)", 0, 100),),
    marker="",
)
