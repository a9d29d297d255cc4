"""What a predictive says as an image turns: curves over many images, and one image followed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from bhnbench.contract import Outcome, Table
from bhnbench_tasks.corruptions import rotate
from bhnbench_tasks.figures.lines import DrawLines, Panel
from bhnbench_tasks.figures.panels import Outcomes, make_panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

N_THUMBNAILS = 7
MIN_SHOWN = 0.1  # a class that is never as likely is left out

draw_rotation = DrawLines(
    "rotation",
    "angle",
    "angle (degrees)",
    (
        Panel("entropy", "predictive entropy (nats)", low=0),
        Panel("bald", "BALD (nats)", low=0),
        Panel("accuracy", "accuracy (%)", low=0, high=100),
        Panel("nll", "nll (nats)", low=0),
    ),
)


def draw_rotated_digit(outcomes: Outcomes) -> Figure:
    """One panel a method: mean and sd of the class probabilities of one image; its first seed."""
    shown = {label: runs[0] for label, runs in outcomes.items() if runs}
    figure, panels = make_panels(len(shown), width=4.0, height=3.2)
    for axes, (label, run) in zip(panels, shown.items(), strict=False):
        _draw_probabilities(axes, run.tables["shown_digit"])
        _draw_thumbnails(axes, run)
        axes.set_title(label, y=1.2)  # above the thumbnails
    lines = {str(line.get_label()): line for axes in panels for line in axes.lines}
    classes = sorted(lines, key=int)
    if classes:
        handles = [lines[name] for name in classes]
        figure.legend(handles, classes, title="class", loc="outside lower center", ncols=10)
        figure.suptitle("one image, first seed; mean and sd of samples", fontsize="medium")
    return figure


def _draw_probabilities(axes: Axes, table: Table) -> None:
    angle = table["angle"]
    for k in range((len(table) - 1) // 2):
        mean, sd = table[f"mean_{k}"], table[f"sd_{k}"]
        if mean.max() < MIN_SHOWN:
            continue
        axes.plot(angle, mean, color=f"C{k}", label=f"{k}", marker=".", markersize=4)
        low, high = np.clip([mean - sd, mean + sd], 0, 1)
        axes.fill_between(angle, low, high, color=f"C{k}", alpha=0.2, linewidth=0)
    axes.set(
        xlabel="angle (degrees)",
        ylabel="class probability ± sd",
        xlim=(angle[0], angle[-1]),
        ylim=(-0.02, 1.02),
        xticks=np.linspace(angle[0], angle[-1], N_THUMBNAILS),
    )
    axes.grid(alpha=0.3)


def _draw_thumbnails(axes: Axes, run: Outcome) -> None:
    """The image as it is turned, above its angles."""
    table = run.tables["shown_image"]
    shape = (table["row"].max() + 1, table["column"].max() + 1)
    image = torch.from_numpy(np.asarray(table["intensity"])).reshape(1, 1, *shape)
    angles = np.linspace(0, run.tables["shown_digit"]["angle"][-1], N_THUMBNAILS)
    turned = rotate(image.expand(N_THUMBNAILS, -1, -1, -1), torch.from_numpy(angles))
    for i, thumbnail in enumerate(turned):
        centre = i / (N_THUMBNAILS - 1)
        place = axes.inset_axes((centre - 0.06, 1.02, 0.12, 0.15))
        place.imshow(thumbnail[0].numpy(), cmap="gray_r", vmin=0, vmax=1)
        place.set_axis_off()
