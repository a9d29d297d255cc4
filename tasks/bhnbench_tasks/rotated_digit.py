"""Rotated digit: the predictive distribution against the angle an image is turned by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from bhnbench.contract import (
    Checkpoint,
    Draw,
    Fit,
    Holdout,
    Metric,
    Outcome,
    Predictive,
    Report,
    Split,
    Table,
)
from bhnbench.errors import DataError
from bhnbench.likelihoods import Categorical
from bhnbench.space import Int, setting
from bhnbench_tasks.corruptions import as_images, not_images, rotate
from bhnbench_tasks.datasets import n_classes
from bhnbench_tasks.figures.rotation import draw_rotated_digit, draw_rotation
from bhnbench_tasks.image_task import ImageTask, first
from bhnbench_tasks.scores import sample_outputs, uncertainty_scores
from bhnbench_tasks.streams import spawn

AREA_UNDER_ENTROPY_CURVE = Metric(
    "area_under_entropy_curve",
    "maximize",
    "nats",
    "predictive entropy, its mean over images and angles by the trapezoid rule",
)
ENTROPY_RISE = Metric(
    "entropy_rise", "maximize", "nats", "area_under_entropy_curve less the entropy at 0 degrees"
)
NLL = Metric(
    "nll", "minimize", "nats", "of the upright image's class, mean over angles by the same rule"
)
ACCURACY = Metric("accuracy", "maximize", "%", "the same mean over angles")
UPRIGHT_ACCURACY = Metric("upright_accuracy", "maximize", "%", "accuracy at 0 degrees")
SHOWN_CLASS = 3


@dataclass(frozen=True, kw_only=True)
class RotatedDigit(ImageTask):
    """Train on upright digits, then turn unseen ones and ask for their class.

    From Gal and Ghahramani (2016), "Dropout as a Bayesian approximation", section 5.2, and
    Pawlowski et al. (2017), "Implicit weight uncertainty in neural networks": as an image turns
    into what no training image looks like, its predictive distribution should widen. They show
    one image; here it is all of the holdout (``n_images``, ``digit``), turned by 0,
    ``angle_step``, ... ``max_angle`` degrees counter-clockwise, bilinearly, with black corners.
    The figure ``rotated_digit`` follows one image as they do: the first 3 of the holdout, or the
    first of ``digit``. (On MNIST's test images that is the one of Pawlowski et al.) Posterior
    samples are the same at all angles, so that a curve follows the same functions.

    **The area under the entropy-angle curve rewards doubt wherever it is**: at the angle 0 and for
    a method that has learnt nothing as well; log 10 = 2.3 nats are the most. ``nll`` falls too as
    training is withheld, because who is sure of what is upright is sure, and wrong, at 180
    degrees: of four methods on the digits, all had more than log 10 with their defaults. Only
    ``entropy_rise`` cannot be had for nothing, as it is 0 for all who are as unsure of upright
    digits: rank by it, and read ``upright_accuracy`` beside it. A 0, 1 or 8 upside down is a 0, 1
    or 8 again, and a 6 is a 9, which counts as an error: no method is right or unsure at all
    angles of all digits. A search turns images as the evaluation does, by the same angles.

    Departures: scores over many images; images turn all the way to 180 degrees, where Pawlowski
    et al. stop at 90, and are turned with linear interpolation, not cubic; the network is smaller.
    """

    max_angle: int = setting(180, "the largest angle, degrees", valid=Int(1, 360))
    angle_step: int = setting(10, "degrees from one angle to the next", valid=Int(1, 360))
    n_images: int | None = setting(
        None, "first images of the holdout to turn; null for all", valid=Int(1, 60_000)
    )
    digit: int | None = setting(None, "turn this class only; null for all", valid=Int(0, 9))

    metrics: ClassVar[tuple[Metric, ...]] = (
        AREA_UNDER_ENTROPY_CURVE,
        ENTROPY_RISE,
        NLL,
        ACCURACY,
        UPRIGHT_ACCURACY,
    )
    figures: ClassVar[Mapping[str, Draw]] = {
        "rotation": draw_rotation,
        "rotated_digit": draw_rotated_digit,
    }

    def mistakes(self) -> list[str]:
        """Steps that do not meet the largest angle, or nothing that can be turned."""
        mistakes = super().mistakes() + not_images(self.dataset)
        if self.max_angle % self.angle_step:
            mistakes.append(
                "max_angle must be a multiple of angle_step, "
                f"but got max_angle={self.max_angle}, angle_step={self.angle_step}"
            )
        known = n_classes(self.dataset)
        if self.digit is not None and self.digit >= known:
            mistakes.append(
                f"digit must be one of the {known} classes of {self.dataset}, numbered from 0, "
                f"but is {self.digit}; null turns all"
            )
        return mistakes

    def evaluate(
        self,
        fit: Fit,
        *,
        holdout: Holdout,
        rng: torch.Generator,
        report: Report,
        checkpoint: Checkpoint,
    ) -> Outcome:
        """Fit once; its steps are epochs."""
        dataset = self.load()
        (score_rng,) = spawn(rng, 1)
        scored, shape = dataset.holdout(holdout), dataset.image_shape
        if self.digit is not None:
            scored = of_class(scored, self.digit)
        shown = example(scored)
        predictive = fit(self.problem(dataset), report=report)
        turned = _Turned(predictive, shape, self.n_samples, score_rng)
        curve = turned.curve(first(scored, self.n_images), self._angles)
        return Outcome(
            scores=summarise(curve),
            tables={
                "rotation": curve,
                "shown_digit": turned.probabilities(shown, self._angles),
                "shown_image": pixels(as_images(shown.inputs, shape)),
            },
        )

    @property
    def _angles(self) -> range:
        return range(0, self.max_angle + 1, self.angle_step)


@dataclass(frozen=True)
class _Turned:
    """What a predictive says about turned images."""

    predictive: Predictive
    image_shape: tuple[int, int]
    n_samples: int
    rng: torch.Generator

    def outputs(self, inputs: torch.Tensor, degrees: float) -> torch.Tensor:
        """Of the same posterior samples, whatever the angle; of one where all are the same."""
        images = rotate(as_images(inputs, self.image_shape), degrees) if degrees else inputs
        rng = self.rng.clone_state()
        return sample_outputs(self.predictive, images.flatten(1), self.n_samples, rng)

    def curve(self, split: Split, angles: Sequence[int]) -> Table:
        """Mean uncertainty and scores at each angle."""
        points = [self._point(split, degrees) for degrees in angles]
        columns = {name: np.array([point[name] for point in points]) for name in points[0]}
        return {"angle": np.array(angles), **columns}

    def _point(self, split: Split, degrees: float) -> dict[str, float]:
        outputs = self.outputs(split.inputs, degrees)
        doubts = uncertainty_scores(outputs)
        return {
            **{name: values.mean().item() for name, values in doubts.items()},
            **Categorical(outputs.shape[-1]).scores(outputs, split.targets),
        }

    def probabilities(self, split: Split, angles: Sequence[int]) -> Table:
        """Each class's probability for one image: mean and standard deviation over samples."""
        outputs = torch.cat([self.outputs(split.inputs, degrees) for degrees in angles], dim=1)
        probs = outputs.double().softmax(-1).cpu()
        means, sds = probs.mean(0), probs.std(0, correction=0)
        table = {"angle": np.array(angles)}
        for k in range(probs.shape[-1]):
            table |= {f"mean_{k}": means[:, k].numpy(), f"sd_{k}": sds[:, k].numpy()}
        return table


def summarise(curve: Table) -> dict[str, float]:
    """Means over the angles by the trapezoid rule, and what is at 0 degrees."""
    angles = curve["angle"]

    def mean(column: str) -> float:
        return float(np.trapezoid(curve[column], angles) / (angles[-1] - angles[0]))

    return {
        "area_under_entropy_curve": mean("entropy"),
        "entropy_rise": mean("entropy") - float(curve["entropy"][0]),
        "nll": mean("nll"),
        "accuracy": mean("accuracy"),
        "upright_accuracy": float(curve["accuracy"][0]),
    }


def of_class(split: Split, target: int) -> Split:
    """The examples of a class.

    Raises:
        DataError: there are none.
    """
    rows = split.targets == target
    if not rows.any():
        classes = sorted(set(split.targets.tolist()))
        raise DataError(
            f"digit must be a class of the images to turn, {classes}, but is {target}; name one"
        )
    return Split(split.inputs[rows], split.targets[rows])


def example(split: Split) -> Split:
    """The first 3, or the first image where there is no 3."""
    row = int((split.targets == SHOWN_CLASS).int().argmax())
    return Split(split.inputs[row : row + 1], split.targets[row : row + 1])


def pixels(images: torch.Tensor) -> Table:
    """The first image in grey, a row a pixel."""
    grey = images[0].mean(0).cpu()
    rows, columns = torch.meshgrid(*(torch.arange(n) for n in grey.shape), indexing="ij")
    table = {"row": rows, "column": columns, "intensity": grey}
    return {name: values.flatten().numpy().copy() for name, values in table.items()}
