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
UNITS = {"entropy": " (nats)", "bald": " (nats)"}
_draw_steps = partial(
    DrawLines, "step_sizes", "step", "step size", x_scale="symlog", linear_below=0.001
)


def _one_a_score(
    prefix: str, label: str, high: float = float("inf"), guess: float | None = None
) -> DrawLines:
    panels = [
        Panel(
            f"{prefix}_{name}",
            label.format(unit=UNITS.get(name, "")),
            low=0,
            high=high,
            title=title,
            guess=guess,
        )
        for name, title in SCORES.items()
    ]
    return _draw_steps(tuple(panels))


draw_accuracy = _draw_steps(
    (
        Panel("accuracy", "accuracy (%)", low=0, high=100),
        Panel("nll", "nll (nats)", low=0),
    )
)
draw_scores = _one_a_score("mean", "mean over images{unit}")
draw_detection = _one_a_score("detection", "AUROC, adversarial (%)", 100, guess=50)
draw_errors = _one_a_score("error", "AUROC, errors (%)", 100, guess=50)
