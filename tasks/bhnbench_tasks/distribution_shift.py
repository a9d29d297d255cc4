"""Distribution shift: the log loss of clean training on ever more corrupted images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
from bhnbench.likelihoods import Categorical
from bhnbench.space import Int, setting
from bhnbench_tasks.corruptions import (
    CORRUPTIONS,
    SEVERITIES,
    as_images,
    not_images,
    not_pixels,
)
from bhnbench_tasks.figures.shift import draw_corruptions, draw_shift
from bhnbench_tasks.image_task import ImageTask, first
from bhnbench_tasks.streams import spawn

_MEAN = "mean over corruptions and severities 1 to 5"
NLL = Metric("nll", "minimize", "nats", f"negative log probability of the class, {_MEAN}")
ECE = Metric("ece", "minimize", "%", f"expected calibration error, {_MEAN}")
ACCURACY = Metric("accuracy", "maximize", "%", _MEAN)
CLEAN_NLL = Metric("clean_nll", "minimize", "nats", "nll of the images as they are")
CLEAN_ACCURACY = Metric("clean_accuracy", "maximize", "%", "accuracy on the images as they are")
COLUMNS = ("nll", "accuracy", "ece", "brier")


@dataclass(frozen=True, kw_only=True)
class DistributionShift(ImageTask):
    """Train on clean images, and score the class probabilities of corrupted ones.

    The protocol of Ovadia et al. (2019), "Can you trust your model's uncertainty? Evaluating
    predictive uncertainty under dataset shift", section 3: accuracy, log loss and calibration
    error against the severity of a corruption, on the whole holdout (or ``n_images`` of it). A
    method that knows what it does not know loses accuracy with severity, but stays calibrated.

    **A search never meets what an evaluation scores**: validation images are corrupted by
    ``search_corruptions``, test images by ``corruptions``, and no corruption may be among both, as
    Hendrycks and Dietterich (2019), "Benchmarking neural network robustness to common
    corruptions and perturbations", keep some of theirs for validation. So a hyperparameter
    cannot be tuned to a certain blur, but scores of search and evaluation are not comparable.

    At severity s = 1 ... 5, with lengths in shares of the image's height:

    - ``blur``: Gaussian, sd 0.02 s
    - ``noise``: Gaussian, sd 0.1 s, pixels kept in [0, 1]
    - ``occlusion``: a black square with a side of 0.1 s, anywhere in the image
    - ``translation``: by 0.05 s in any direction
    - ``contrast``: distances to an image's mean multiplied by 1 - 0.15 s
    - ``rotation``: by 9 s degrees to either side
    - ``salt_and_pepper``: 5 s % of the pixels become black or white
    - ``shear``: by 0.15 s pixels a row to either side

    Places, directions and noise are drawn from the seed, alike for all methods and severities.

    Departures: the corruptions are chosen for digits instead of photographs, and computed when
    they are needed instead of read from a published file.
    """

    corruptions: str = setting(
        "blur, noise, occlusion, translation", "of test images, separated by commas"
    )
    search_corruptions: str = setting(
        "contrast, rotation, salt_and_pepper, shear", "of validation images, none of the former"
    )
    n_images: int | None = setting(
        None, "first images of the holdout to corrupt; null for all", valid=Int(1, 60_000)
    )

    metrics: ClassVar[tuple[Metric, ...]] = (NLL, ECE, ACCURACY, CLEAN_NLL, CLEAN_ACCURACY)
    figures: ClassVar[Mapping[str, Draw]] = {
        "shift": draw_shift,
        "corruptions": draw_corruptions,
    }

    def mistakes(self) -> list[str]:
        """Corruptions that do not exist, or are met in the search and the evaluation."""
        mistakes = super().mistakes() + not_images(self.dataset) + not_pixels(self.dataset)
        tested, searched = split_names(self.corruptions), split_names(self.search_corruptions)
        for setting_name, names in (("corruptions", tested), ("search_corruptions", searched)):
            if not names or len(set(names)) < len(names) or set(names) - set(CORRUPTIONS):
                mistakes.append(
                    f"{setting_name} must be different ones of {', '.join(CORRUPTIONS)}, "
                    f"separated by commas, but got {', '.join(names) or 'none'}"
                )
        common = [name for name in tested if name in searched]
        if common:
            mistakes.append(
                "corruptions and search_corruptions must share none, "
                f"but both have {', '.join(common)}"
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
        score_rng, *corruption_rngs = spawn(rng, 1 + len(CORRUPTIONS))
        rngs = dict(zip(CORRUPTIONS, corruption_rngs, strict=True))
        predictive = fit(self.problem(dataset), report=report)
        scored = first(dataset.holdout(holdout), self.n_images)
        names = self.corruptions if holdout == "test" else self.search_corruptions
        corrupted = _Corrupted(scored, dataset.image_shape, predictive, self.n_samples, score_rng)
        clean = corrupted.scores(scored.inputs)
        tables = {name: corrupted.curve(name, clean, rngs[name]) for name in split_names(names)}
        mean = mean_table(tables.values())
        return Outcome(scores=summarise(mean), tables={"mean": mean, **tables})


@dataclass(frozen=True)
class _Corrupted:
    """What a predictive says about corrupted images."""

    split: Split
    image_shape: tuple[int, int]
    predictive: Predictive
    n_samples: int
    rng: torch.Generator

    def curve(self, name: str, clean: Mapping[str, float], rng: torch.Generator) -> Table:
        """Scores at each severity, from 0."""
        images = as_images(self.split.inputs, self.image_shape)
        points = [clean]
        for severity in SEVERITIES:
            corrupted = CORRUPTIONS[name](images, severity, rng.clone_state())
            points.append(self.scores(corrupted.flatten(1)))
        columns = {column: np.array([point[column] for point in points]) for column in COLUMNS}
        return {"severity": np.array([0, *SEVERITIES]), **columns}

    def scores(self, inputs: torch.Tensor) -> dict[str, float]:
        """Under the same posterior samples, whatever the corruption."""
        outputs = self.predictive.sample(inputs, self.n_samples, rng=self.rng.clone_state())
        outputs = outputs.detach()
        return Categorical(outputs.shape[-1]).scores(outputs, self.split.targets)


def split_names(text: str) -> Sequence[str]:
    """``"blur, noise"`` as ``["blur", "noise"]``."""
    return [name.strip() for name in text.split(",") if name.strip()]


def mean_table(tables: Iterable[Table]) -> Table:
    """The mean of each column."""
    columns = list(tables)
    return {name: np.mean([table[name] for table in columns], axis=0) for name in columns[0]}


def summarise(mean: Table) -> dict[str, float]:
    """Means over the severities above 0, and what is at 0."""
    shifted = {name: float(mean[name][1:].mean()) for name in ("nll", "ece", "accuracy")}
    clean = {f"clean_{name}": float(mean[name][0]) for name in ("nll", "accuracy")}
    return shifted | clean
