"""What adversarial images do to a method, against the step size."""

from __future__ import annotations

from functools import partial

from bhnbench_tasks.figures.lines import DrawLines, Panel

SCORES = {
    "entropy": "predictive entropy",
    "least_confidence": "1 - confidence",
    "bald": "BALD",
    "mean_sd": "mean sd",
}
_draw_steps = partial(
    DrawLines, "step_sizes", "step", "step size", x_scale="symlog", linear_below=0.001
)


def _one_a_score(prefix: str, label: str, high: float) -> DrawLines:
    panels = [
        Panel(f"{prefix}_{name}", label, low=0, high=high, title=title)
        for name, title in SCORES.items()
    ]
    return _draw_steps(tuple(panels))


draw_accuracy = _draw_steps(
    (
        Panel("accuracy", "accuracy (%)", low=0, high=100),
        Panel("nll", "nll (nats)", low=0),
    )
)
draw_scores = _one_a_score("mean", "mean over images", float("inf"))
draw_detection = _one_a_score("detection", "AUROC, adversarial (%)", 100)
draw_errors = _one_a_score("error", "AUROC, errors (%)", 100)
