"""Active learning: accuracy against the number of labels acquired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

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
    Problem,
    Report,
    Split,
)
from bhnbench.metrics import ACCURACY, NLL
from bhnbench.space import Choice, Int, setting
from bhnbench_tasks.acquisition import ACQUISITIONS, choose_points
from bhnbench_tasks.datasets import Dataset, n_train_rows
from bhnbench_tasks.figures.lines import draw_learning_curve
from bhnbench_tasks.image_task import ImageTask, first
from bhnbench_tasks.initialisation import FixedInitialisation
from bhnbench_tasks.streams import spawn

AREA_UNDER_CURVE = Metric(
    "area_under_curve", "maximize", "%", "mean accuracy over the labels from the first to the last"
)
ERRORS = (10, 5)  # %
LABELS_TO_ERROR = tuple(
    Metric(
        f"labels_to_{error}_error",
        "minimize",
        "labels",
        f"labels until the error is {error} % or less, at most one round more than were bought",
    )
    for error in ERRORS
)
Point = Mapping[str, float]  # of the learning curve: n_labels, accuracy, nll


@dataclass(frozen=True, kw_only=True)
class ActiveLearning(ImageTask):
    """Start with few labels, and let the method's uncertainty choose which to buy next.

    The protocol of Gal, Islam and Ghahramani (2017), "Deep Bayesian active learning with image
    data", as in Krueger et al. (2017), "Bayesian hypernetworks", figure 4: train on the initial
    labels, equally many of each class; then in every round score a random part of the pool with
    posterior samples, label the points with the highest acquisition score, and train again.
    Accuracy is measured after every training, on the whole holdout split. A fit sees 100
    validation images, as in Gal et al.: who has few labels to train on has few to validate with.
    So nothing is decided by the test images of an evaluation, but a search scores those 100, by
    which a method may choose its epoch, among the others.

    ``acquisition``: ``bald``, ``max_entropy``, ``variation_ratio`` and ``mean_sd`` score points
    one by one; ``batch_bald`` (Kirsch et al., 2019) scores what a whole batch tells together.

    ``restart`` is where each training starts, the four modes of Krueger et al.: ``warm``, from
    the last round's predictive (their code calls it none); ``fresh``, from new random weights;
    ``pretrained``, from the predictive of the initial labels, whatever has been learned since;
    ``deterministic``, from the same random weights in every round. The last one fixes what the
    task can see, the network that it hands out: what a method adds to it is drawn anew, and an
    ensemble's members start alike, so leave ensembles to the other modes.

    ``labels_to_10_error`` is where the learning curve, with straight lines between the rounds,
    first has an error of 10 % or less. Where it never does, the value is the number of labels at
    the end and those of one more round: a lower bound, worse than all that were reached.

    Initial labels, candidates and samples depend on the seed alone: every method starts with the
    same labels and is offered candidates at the same places of the pool.

    Departures: acquired points leave the pool (in the published code they could be bought
    again). Scores are rounded to 1e-6 and ties are broken at random; so a method whose samples
    are all equal, for which BALD is 0, acquires at random. The initial labels come from the
    pool, in the papers from images beside it. ``pretrained`` trains on the initial labels as
    long as in any round, in the paper until all are right. The network is an MLP instead of a
    CNN, rounds are fewer, and each has 100 epochs, because an epoch on 20 labels is one step.
    ``cnn_32`` has 32 filters in its first convolution for every method; in the published code
    the hypernetwork had 32 there and the baselines 1.
    ``dataset: mnist, n_train: 40000, network: cnn_32, n_rounds: 98, n_candidates: 2000, epochs:
    50, batch_size: 128`` is the papers' size.
    """

    version: ClassVar[str] = "2"

    n_train: int | None = setting(
        None, "first training images, which are the pool; null for all", valid=Int(1, 60_000)
    )
    acquisition: str = setting("bald", "which points to label", valid=ACQUISITIONS)
    restart: str = setting(
        "warm",
        "where each training starts: from the last round's predictive, from new weights (which "
        "wants more epochs), from the predictive of the initial labels, from the same weights",
        valid=Choice("warm", "fresh", "pretrained", "deterministic"),
    )
    n_initial: int = setting(20, "labels at the start, balanced", valid=Int(1, 50_000))
    n_rounds: int = setting(10, "rounds of acquisition", valid=Int(1, 10_000))
    n_acquired: int = setting(10, "labels bought in a round", valid=Int(1, 10_000))
    n_candidates: int | None = setting(
        500, "random pool points scored in a round; null for all", valid=Int(1, 50_000)
    )
    n_samples: int = setting(100, "posterior samples, for both scorings", valid=Int(1, 10_000))
    n_validation: int = setting(
        100, "validation images that a fit may look at, at most", valid=Int(1, 10_000)
    )
    epochs: int = setting(100, "passes over the labels in a round", valid=Int(1, 10_000))

    metrics: ClassVar[tuple[Metric, ...]] = (AREA_UNDER_CURVE, ACCURACY, NLL, *LABELS_TO_ERROR)
    figures: ClassVar[Mapping[str, Draw]] = {"learning_curve": draw_learning_curve}

    def mistakes(self) -> list[str]:
        """More labels than the pool has, fewer candidates than are bought."""
        mistakes = super().mistakes()
        n_labels, n_pool = self.n_initial + self.n_rounds * self.n_acquired, self._n_pool
        if n_labels > n_pool:
            mistakes.append(
                f"n_initial + n_rounds * n_acquired <= {n_pool} must hold for {self.dataset}, "
                f"but got {self.n_initial} + {self.n_rounds} * {self.n_acquired} = {n_labels}"
            )
        if self.n_candidates is not None and self.n_candidates < self.n_acquired:
            mistakes.append(
                "n_candidates >= n_acquired must hold, "
                f"but got n_candidates={self.n_candidates}, n_acquired={self.n_acquired}"
            )
        return mistakes

    @property
    def _n_pool(self) -> int:
        return self.n_train or n_train_rows(self.dataset)

    def evaluate(
        self,
        fit: Fit,
        *,
        holdout: Holdout,
        rng: torch.Generator,
        report: Report,
        checkpoint: Checkpoint,
    ) -> Outcome:
        """Run all rounds. Step 1 is the training on the initial labels."""
        dataset = self.load()
        scored = dataset.holdout(holdout)
        initial_rng, *rngs, network_rng = spawn(rng, 2 + 2 * (1 + self.n_rounds))
        state = checkpoint.load() or self._start(
            dataset.train.targets[: self._n_pool], initial_rng
        )
        labelled, curve, predictive = state["labelled"], state["curve"], state["predictive"]
        start = state["start"]
        for step in range(len(curve) + 1, self.n_rounds + 2):
            acquire_rng, score_rng = rngs[2 * step - 2 : 2 * step]
            if step > 1:
                labelled = labelled + self._acquire(predictive, dataset, labelled, acquire_rng)
            problem = self._problem(dataset, labelled, network_rng.initial_seed())
            predictive = fit(problem, warm_start=start)
            start = self._next_start(start, predictive)
            curve = [*curve, self._point(problem, predictive, scored, score_rng)]
            report(step, summarise(curve, self.n_acquired))
            checkpoint.save(
                {"labelled": labelled, "curve": curve, "predictive": predictive, "start": start}
            )
        return self._outcome(labelled, curve)

    def _start(self, targets: torch.Tensor, rng: torch.Generator) -> dict[str, Any]:
        labelled = draw_balanced(targets, self.n_initial, rng)
        return {"labelled": labelled, "curve": [], "predictive": None, "start": None}

    def _next_start(self, start: Predictive | None, predictive: Predictive) -> Predictive | None:
        """What the next training goes on from, given what this one did and what it found."""
        if self.restart == "warm" or (self.restart == "pretrained" and start is None):
            return predictive
        return start

    def _problem(self, dataset: Dataset, labelled: list[int], network_seed: int) -> Problem:
        problem = self.problem(
            dataset,
            train=Split(dataset.train.inputs[labelled], dataset.train.targets[labelled]),
            validation=first(dataset.validation, self.n_validation),
        )
        if self.restart != "deterministic":
            return problem
        return replace(problem, network=FixedInitialisation(problem.network, network_seed))

    def _acquire(
        self, predictive: Predictive, dataset: Dataset, labelled: list[int], rng: torch.Generator
    ) -> list[int]:
        """Rows of the pool to label next."""
        shuffled = torch.randperm(self._n_pool, generator=rng)
        candidates = shuffled[~torch.isin(shuffled, torch.tensor(labelled))][: self.n_candidates]
        if self.acquisition == "random":
            return candidates[: self.n_acquired].tolist()
        outputs = predictive.sample(dataset.train.inputs[candidates], self.n_samples, rng=rng)
        # The candidates are in random order, so that ties are broken at random.
        places = choose_points(self.acquisition, outputs.detach(), self.n_acquired, rng=rng)
        return candidates[places].tolist()

    def _point(
        self, problem: Problem, predictive: Predictive, scored: Split, rng: torch.Generator
    ) -> Point:
        outputs = predictive.sample(scored.inputs, self.n_samples, rng=rng).detach()
        scores = problem.likelihood.scores(outputs, scored.targets)
        n_labels = float(len(problem.train))
        return {"n_labels": n_labels, "accuracy": scores["accuracy"], "nll": scores["nll"]}

    def _outcome(self, labelled: list[int], curve: Sequence[Point]) -> Outcome:
        bought = np.arange(len(labelled)) - self.n_initial
        rounds = np.maximum(bought // self.n_acquired + 1, 0)  # the initial labels are round 0
        final = summarise(curve, self.n_acquired)
        return Outcome(
            scores={metric.name: final[metric.name] for metric in self.metrics},
            tables={
                "learning_curve": {k: np.array([point[k] for point in curve]) for k in curve[0]},
                "acquisitions": {"round": rounds, "index": np.array(labelled)},
            },
        )


def draw_balanced(targets: torch.Tensor, n: int, rng: torch.Generator) -> list[int]:
    """``n`` random rows, equally many of each class or one more, until a class runs out."""
    shuffled = torch.randperm(len(targets), generator=rng)
    seen: dict[int, int] = {}
    ranked: list[tuple[int, int, int]] = []
    for row, target in zip(shuffled.tolist(), targets[shuffled].tolist(), strict=True):
        seen[target] = seen.get(target, 0) + 1
        ranked.append((seen[target], len(ranked), row))
    return [row for _, _, row in sorted(ranked)[:n]]


def summarise(curve: Sequence[Point], n_acquired: int) -> dict[str, float]:
    """The last point of a learning curve, the area under it in %, and labels to an error.

    The area, by the trapezoid rule, is divided by the range of labels; of one point it is its
    accuracy.
    """
    n_labels = np.array([point["n_labels"] for point in curve])
    accuracy = np.array([point["accuracy"] for point in curve])
    area = accuracy[0]
    if len(curve) > 1:
        area = np.trapezoid(accuracy, n_labels) / (n_labels[-1] - n_labels[0])
    needed = {
        metric.name: labels_to_error(n_labels, 100 - accuracy, error, n_acquired)
        for metric, error in zip(LABELS_TO_ERROR, ERRORS, strict=True)
    }
    return {"area_under_curve": float(area), **curve[-1], **needed}


def labels_to_error(
    n_labels: np.ndarray, errors: np.ndarray, target: float, n_acquired: int
) -> float:
    """Labels at which the error first is ``target`` or less, on straight lines between rounds.

    Where it never is: the labels at the end and those of one more round.
    """
    reached = np.flatnonzero(errors <= target)
    if not len(reached):
        return float(n_labels[-1] + n_acquired)
    end = reached[0]
    start = max(end - 1, 0)
    share = (errors[start] - target) / (errors[start] - errors[end]) if end else 0.0
    return float(n_labels[start] + share * (n_labels[end] - n_labels[start]))
