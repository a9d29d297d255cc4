"""Adversary: images changed to mislead. Who stays right, and who notices?"""

from __future__ import annotations

import itertools
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
from bhnbench.detection import auroc
from bhnbench.likelihoods import Categorical
from bhnbench.metrics import mixture_log_probs
from bhnbench.space import Choice, Int, setting
from bhnbench_tasks.attacks import (
    Attack,
    MixtureLoss,
    Target,
    fast_gradient_sign,
    log_odds,
    projected_gradient,
)
from bhnbench_tasks.corruptions import not_pixels
from bhnbench_tasks.figures.adversary import (
    draw_accuracy,
    draw_detection,
    draw_errors,
    draw_scores,
)
from bhnbench_tasks.image_task import ImageTask, first
from bhnbench_tasks.plain_network import trained_once
from bhnbench_tasks.scores import SCORES, sample_outputs, uncertainty_scores
from bhnbench_tasks.streams import spawn

_MEAN = "mean over step sizes by the trapezoid rule"
AREA_UNDER_ACCURACY_CURVE = Metric(
    "area_under_accuracy_curve", "maximize", "%", f"accuracy on adversarial images, {_MEAN}"
)
CLEAN_ACCURACY = Metric("clean_accuracy", "maximize", "%", "accuracy on the images as they are")
PAPERS_STEPS = (
    "0.001, 0.002, 0.003, 0.004, 0.005, 0.008, 0.01, 0.012, 0.015, 0.02, "
    "0.025, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5"
)


@dataclass(frozen=True, kw_only=True)
class Adversary(ImageTask):
    """Change images so that the method errs, and see whether its uncertainty tells.

    The protocol of Krueger et al. (2017), "Bayesian hypernetworks", figure 5, from their code:
    images of the holdout move by ``step * sign(gradient)`` (the fast gradient sign method), for 20
    step sizes; pixels may leave [0, 1] unless ``clip``. The gradient is that of the log loss of
    the mean class probabilities over ``n_gradient_samples`` posterior samples, one as in the
    figure, or more for a stronger attacker; it is computed from the log odds, whose gradient has
    the same signs and does not round to 0 for who is sure of all. Images are scored with
    ``n_samples`` **fresh** samples, the same at all step sizes: who attacks does not know what
    will be drawn. (Samples of an ensemble or of a chain, ``sgld`` say, are the networks that it
    has kept, in turn: one gradient sample is always the first of them, which is also among those
    that score, and as many as it has kept are all of it. Look at ``transfer`` beside it.)

    ``attack: pgd`` takes ``n_steps`` steps within the same box instead of one, each with fresh
    posterior samples. ``attack: transfer`` does not know the method: its single step follows the
    gradient of a plain network, trained here by maximum likelihood with the task's own network
    and budget, so that all methods of a seed meet the same images. **A method that only hides its
    gradients is weaker against transfer than against fgs**; look at both before calling it robust.

    At each step size: the accuracy; how well each of four uncertainty scores tells adversarial
    images from the clean ones (``detection_...``) and, among the adversarial ones, errors from
    hits (``error_...``), as AUROC, which is 50 % where there is nothing to tell apart. A run's
    score is the mean of its curve over step sizes from 0 to the largest, by the trapezoid rule on
    a linear axis, so large steps weigh most. There is no best-of-scores: each is a metric by
    itself. Scores of disagreement say nothing (50 %) of a method whose samples are all equal.

    A search attacks validation images only, and test images are attacked in an evaluation; the
    attack is the same.

    Departures: the network is smaller. The scores of an image are those of the same posterior
    samples before and after the attack; in the published code each has its own.
    """

    attack: str = setting(
        "fgs", "who attacks, and knowing what", valid=Choice("fgs", "pgd", "transfer")
    )
    n_gradient_samples: int = setting(
        1, "posterior samples of each gradient of fgs and pgd", valid=Int(1, 1000)
    )
    n_steps: int = setting(10, "steps of pgd", valid=Int(1, 1000))
    step_sizes: str = setting(
        PAPERS_STEPS, "largest changes of a pixel, increasing, separated by commas"
    )
    clip: bool = setting(False, "keep adversarial pixels in [0, 1]")
    n_images: int | None = setting(
        None, "first images of the holdout to attack; null for all", valid=Int(1, 60_000)
    )
    n_samples: int = setting(20, "posterior samples at scoring", valid=Int(1, 10_000))

    version: ClassVar[str] = "2"
    metrics: ClassVar[tuple[Metric, ...]] = (
        AREA_UNDER_ACCURACY_CURVE,
        CLEAN_ACCURACY,
        *(
            Metric(f"{kind}_{score}", "maximize", "%", f"AUROC of {score} for {what}, {_MEAN}")
            for kind, what in (("detection", "adversarial images"), ("error", "errors among them"))
            for score in SCORES
        ),
    )
    figures: ClassVar[Mapping[str, Draw]] = {
        "accuracy": draw_accuracy,
        "uncertainty": draw_scores,
        "detection": draw_detection,
        "error_detection": draw_errors,
    }

    def mistakes(self) -> list[str]:
        """Step sizes that are not increasing positive numbers, or no pixels to clip."""
        mistakes = super().mistakes() + (not_pixels(self.dataset) if self.clip else [])
        try:
            parse_steps(self.step_sizes)
        except ValueError as error:
            mistakes.append(str(error))
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
        attack_rng, score_rng = spawn(rng, 2)
        predictive = fit(self.problem(dataset), report=report)
        attacked = first(dataset.holdout(holdout), self.n_images)
        attack = self._attack(predictive, attacked, attack_rng)
        steps = parse_steps(self.step_sizes)
        scoring = _Scoring(predictive, attacked, self.n_samples, score_rng)
        curve = scoring.curve(attack, steps)
        return Outcome(
            scores={metric.name: summary(curve, metric.name) for metric in self.metrics},
            tables={"step_sizes": curve},
        )

    def _attack(self, predictive: Predictive, split: Split, rng: torch.Generator) -> Attack:
        low, high = (0.0, 1.0) if self.clip else (-torch.inf, torch.inf)
        if self.attack == "transfer":
            network = trained_once(self, self.data_digest, rng.initial_seed())
            target = Target(
                split,
                lambda inputs, targets, _: log_odds(network(inputs).unsqueeze(0), targets),
                low=low,
                high=high,
            )
            return fast_gradient_sign(target, rng)
        n_samples = self.n_gradient_samples
        target = Target(split, MixtureLoss(predictive, n_samples), n_samples, low, high)
        if self.attack == "pgd":
            return projected_gradient(target, rng, self.n_steps)
        return fast_gradient_sign(target, rng)


@dataclass(frozen=True)
class _Scoring:
    """What a predictive says about images before and after an attack."""

    predictive: Predictive
    split: Split
    n_samples: int
    rng: torch.Generator

    def curve(self, attack: Attack, steps: Sequence[float]) -> Table:
        """Scores at each step size, from 0."""
        clean = self._seen(self.split.inputs)
        attacked = (self._seen(attack(step)) for step in steps)
        points = [_point(clean, seen) for seen in itertools.chain([clean], attacked)]
        columns = {name: np.array([point[name] for point in points]) for name in points[0]}
        return {"step": np.array([0.0, *steps]), **columns}

    def _seen(self, inputs: torch.Tensor) -> _Seen:
        """Under the same posterior samples, whatever the images."""
        outputs = sample_outputs(self.predictive, inputs, self.n_samples, self.rng.clone_state())
        targets = self.split.targets
        is_error = mixture_log_probs(outputs).argmax(-1) != targets
        found = Categorical(outputs.shape[-1]).scores(outputs, targets)
        return _Seen(found, uncertainty_scores(outputs), is_error.cpu())


@dataclass(frozen=True)
class _Seen:
    """Metrics of a set of images; uncertainty and error of each image, ``(n,)``."""

    metrics: Mapping[str, float]
    uncertainty: Mapping[str, torch.Tensor]
    is_error: torch.Tensor


def _point(clean: _Seen, attacked: _Seen) -> dict[str, float]:
    is_attacked = torch.arange(2) == 1
    point = {name: attacked.metrics[name] for name in ("accuracy", "nll", "ece")}
    for name, values in attacked.uncertainty.items():
        both = torch.cat([clean.uncertainty[name], values])
        point[f"mean_{name}"] = values.mean().item()
        point[f"detection_{name}"] = auroc(both, is_attacked.repeat_interleave(len(values)))
        point[f"error_{name}"] = auroc(values, attacked.is_error)
    return point


def summary(curve: Table, metric: str) -> float:
    """The metric of a run: a column's mean over step sizes by the trapezoid rule."""
    if metric == CLEAN_ACCURACY.name:
        return float(curve["accuracy"][0])
    column = "accuracy" if metric == AREA_UNDER_ACCURACY_CURVE.name else metric
    return float(np.trapezoid(curve[column], curve["step"]) / curve["step"][-1])


def parse_steps(text: str) -> list[float]:
    """``"0.1, 0.5"`` as ``[0.1, 0.5]``.

    Raises:
        ValueError: they are not increasing positive numbers.
    """
    rule = f"step_sizes must be increasing positive numbers, but got {text!r}; try '0.1, 0.5'"
    try:
        steps = [float(step) for step in text.split(",")]
    except ValueError:
        raise ValueError(rule) from None
    if not all(low < high < float("inf") for low, high in itertools.pairwise([0.0, *steps])):
        raise ValueError(rule)
    return steps
