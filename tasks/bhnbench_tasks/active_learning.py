"""Active learning: accuracy against the number of labels acquired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch

from bhnbench import uncertainty
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
    Task,
)
from bhnbench.likelihoods import Categorical
from bhnbench.metrics import ACCURACY, NLL
from bhnbench.space import Choice, Int, setting
from bhnbench_tasks.datasets import (
    NAMES,
    Dataset,
    data_digest,
    load_dataset,
    n_train_rows,
    prepare_dataset,
)
from bhnbench_tasks.figures import draw_learning_curve
from bhnbench_tasks.networks import mlp
from bhnbench_tasks.streams import spawn

AREA_UNDER_CURVE = Metric(
    "area_under_curve", "maximize", "%", "mean accuracy over the labels from the first to the last"
)
ACQUISITIONS = {
    "bald": uncertainty.bald,
    "max_entropy": uncertainty.predictive_entropy,
    "variation_ratio": uncertainty.variation_ratio,
    "mean_sd": uncertainty.mean_sd,
}
Point = Mapping[str, float]  # of the learning curve: n_labels, accuracy, nll


@dataclass(frozen=True, kw_only=True)
class ActiveLearning(Task):
    """Start with few labels, and let the method's uncertainty choose which to buy next.

    The protocol of Gal, Islam and Ghahramani (2017), "Deep Bayesian active learning with image
    data", as in Krueger et al. (2017), "Bayesian hypernetworks", figure 4: train on the initial
    labels, equally many of each class; then in every round score a random part of the pool with
    posterior samples, label the points with the highest acquisition score, and train again, from
    the last round's predictive (``restart: warm``) or afresh (``fresh``). Accuracy is measured
    after every training, on the whole holdout split; nothing is decided by it. A fit sees 100
    validation images, as in Gal et al.: who has few labels to train on has few to validate with.

    Initial labels, candidates and samples depend on the seed alone: every method starts with the
    same labels and is offered candidates at the same places of the pool.

    Departures: acquired points leave the pool (in the published code they could be bought
    again). Scores are rounded to 1e-6 and ties are broken at random; so a method whose samples
    are all equal, for which BALD is 0, acquires at random. The network is an MLP instead of a
    CNN, rounds are fewer, and each has 100 epochs, because an epoch on 20 labels is one step.
    ``dataset: mnist, n_rounds: 98, n_candidates: 2000, epochs: 50, batch_size: 128, n_layers: 3``
    comes closest to the papers; their pool is 40 000 images, here it is 50 000.
    """

    dataset: str = setting("digits", "data set; its training split is the pool", valid=NAMES)
    acquisition: str = setting(
        "bald", "which points to label", valid=Choice(*ACQUISITIONS, "random")
    )
    restart: str = setting(
        "warm",
        "train on from the last round, or afresh (which wants more epochs)",
        valid=Choice("warm", "fresh"),
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
    batch_size: int = setting(32, "images in a minibatch", valid=Int(1, 50_000))
    n_hidden: int = setting(100, "ReLU units of a hidden layer", valid=Int(1, 10_000))
    n_layers: int = setting(2, "hidden layers", valid=Int(1, 3))

    metrics: ClassVar[tuple[Metric, ...]] = (AREA_UNDER_CURVE, ACCURACY, NLL)
    figures: ClassVar[Mapping[str, Draw]] = {"learning_curve": draw_learning_curve}

    def __post_init__(self) -> None:
        mistakes = []
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
        if mistakes:
            raise ValueError("; ".join(mistakes))

    @property
    def _n_pool(self) -> int:
        return n_train_rows(self.dataset)

    @property
    def data_digest(self) -> str:
        """Digest of the data set."""
        return data_digest(self.dataset)

    def prepare(self) -> None:
        """Fetch and check the data set."""
        prepare_dataset(self.dataset)

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
        dataset = load_dataset(self.dataset)
        scored = dataset.holdout(holdout)
        initial_rng, *rngs = spawn(rng, 1 + 2 * (1 + self.n_rounds))
        state = checkpoint.load() or self._start(dataset.train.targets, initial_rng)
        labelled, curve, predictive = state["labelled"], state["curve"], state["predictive"]
        for step in range(len(curve) + 1, self.n_rounds + 2):
            acquire_rng, score_rng = rngs[2 * step - 2 : 2 * step]
            if step > 1:
                labelled = labelled + self._acquire(predictive, dataset, labelled, acquire_rng)
            problem = self._problem(dataset, labelled)
            predictive = fit(problem, warm_start=predictive if self.restart == "warm" else None)
            curve = [*curve, self._point(problem, predictive, scored, score_rng)]
            report(step, summarise(curve))
            checkpoint.save({"labelled": labelled, "curve": curve, "predictive": predictive})
        return self._outcome(labelled, curve)

    def _start(self, targets: torch.Tensor, rng: torch.Generator) -> dict[str, Any]:
        labelled = draw_balanced(targets, self.n_initial, rng)
        return {"labelled": labelled, "curve": [], "predictive": None}

    def _problem(self, dataset: Dataset, labelled: list[int]) -> Problem:
        return Problem(
            train=Split(dataset.train.inputs[labelled], dataset.train.targets[labelled]),
            validation=Split(
                dataset.validation.inputs[: self.n_validation],
                dataset.validation.targets[: self.n_validation],
            ),
            likelihood=Categorical(dataset.n_classes),
            network=partial(
                mlp, dataset.n_inputs, self.n_hidden, self.n_layers, dataset.n_classes
            ),
            epochs=self.epochs,
            batch_size=self.batch_size,
        )

    def _acquire(
        self, predictive: Predictive, dataset: Dataset, labelled: list[int], rng: torch.Generator
    ) -> list[int]:
        """Rows of the pool to label next."""
        shuffled = torch.randperm(self._n_pool, generator=rng)
        candidates = shuffled[~torch.isin(shuffled, torch.tensor(labelled))][: self.n_candidates]
        if self.acquisition == "random":
            return candidates[: self.n_acquired].tolist()
        outputs = predictive.sample(dataset.train.inputs[candidates], self.n_samples, rng=rng)
        scores = ACQUISITIONS[self.acquisition](outputs.detach()).cpu()
        # Less than 1e-6 is rounding; the sort is stable, so ties keep their random order.
        best_first = scores.round(decimals=6).argsort(descending=True, stable=True)
        return candidates[best_first[: self.n_acquired]].tolist()

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
        final = summarise(curve)
        return Outcome(
            scores={metric.name: final[metric.name] for metric in self.metrics},
            tables={
                "learning_curve": {k: np.array([point[k] for point in curve]) for k in curve[0]},
                "acquisitions": {"round": rounds, "index": np.array(labelled)},
            },
        )


def draw_balanced(targets: torch.Tensor, n: int, rng: torch.Generator) -> list[int]:
    """``n`` random rows whose class counts differ by at most one."""
    shuffled = torch.randperm(len(targets), generator=rng)
    seen: dict[int, int] = {}
    ranked: list[tuple[int, int, int]] = []
    for row, target in zip(shuffled.tolist(), targets[shuffled].tolist(), strict=True):
        seen[target] = seen.get(target, 0) + 1
        ranked.append((seen[target], len(ranked), row))
    return [row for _, _, row in sorted(ranked)[:n]]


def summarise(curve: Sequence[Point]) -> dict[str, float]:
    """The last point of a learning curve, and the area under it by the trapezoid rule, %.

    The area is divided by the range of labels; of one point it is its accuracy.
    """
    n_labels = np.array([point["n_labels"] for point in curve])
    accuracy = np.array([point["accuracy"] for point in curve])
    area = accuracy[0]
    if len(curve) > 1:
        area = np.trapezoid(accuracy, n_labels) / (n_labels[-1] - n_labels[0])
    return {"area_under_curve": float(area), **curve[-1]}
