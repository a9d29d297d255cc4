"""Incremental learning: data come in parts; one part's posterior is the next one's prior."""

from __future__ import annotations

import contextlib
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
    Table,
)
from bhnbench.errors import DataError, UnsupportedError
from bhnbench.likelihoods import Categorical
from bhnbench.metrics import ACCURACY, NLL, mixture_log_probs
from bhnbench.space import Choice, Int, setting
from bhnbench_tasks.datasets import n_classes, n_train_rows
from bhnbench_tasks.datasets.dataset import Dataset
from bhnbench_tasks.figures.lines import DrawLines, Panel
from bhnbench_tasks.image_task import ImageTask, first
from bhnbench_tasks.streams import spawn

SPLIT = ("inputs", "targets")
FORGETTING = Metric(
    "forgetting", "minimize", "%", "mean loss of accuracy on a part's classes since it was best"
)


draw_parts = DrawLines(
    "parts",
    "n_seen",
    "training images seen",
    (
        Panel("accuracy", "accuracy on all classes (%)", 0, 100),
        Panel("forgetting", "forgetting (%)", -100, 100),
    ),
)
Row = Mapping[str, Any]  # what is known after a part


@dataclass(frozen=True, kw_only=True)
class Incremental(ImageTask):
    """Learn the training images part by part, none of them twice, and be asked about all.

    Bayes' rule needs no old data: the posterior of one part is the prior of the next. So with
    ``carry: posterior`` a method is given its last predictive as the problem's ``prior``; one
    that cannot take it (all but ``bayes_by_backprop``, so far) goes on from its last parameters
    instead, as with ``carry: warm_start``, and forgets what new data do not remind it of; the
    table ``parts`` says which it was. ``carry: data`` trains afresh on all parts so far, which
    nobody who learns part by part can expect to beat.

    ``parts: random`` deals the images out at random, at most one more in one part than in
    another. ``parts: classes`` deals out the classes, those of lower numbers first, as in
    split MNIST with one output for every class: the hardest case, in which the classes of a
    part are all that its training images tell about. Validation images that a fit sees are of
    the classes of its part.

    After each part the holdout is scored. ``forgetting`` (Chaudhry et al., 2018, "Riemannian walk
    for incremental learning", section 3) is the accuracy on the holdout images of a part's
    classes: its best value so far less the present one, averaged over all parts but the last;
    negative where the accuracy is now better than ever. With random parts the classes of each
    part are all classes.

    Source: the sequential updating that the authors of Krueger et al. (2017), "Bayesian
    hypernetworks", tried on 5000 images of MNIST in 1 to 4096 parts, without numbers; Nguyen et
    al. (2018), "Variational continual learning", section 2, is the same for Bayes by backprop.
    """

    n_train: int | None = setting(
        None, "first training images, of all parts together; null for all", valid=Int(1, 60_000)
    )
    n_parts: int = setting(5, "parts of the training images", valid=Int(1, 50))
    parts: str = setting(
        "random",
        "what a part holds: images of all classes, or some classes",
        valid=Choice("random", "classes"),
    )
    carry: str = setting(
        "posterior",
        "what goes on to the next part",
        valid=Choice("posterior", "warm_start", "data"),
    )

    metrics: ClassVar[tuple[Metric, ...]] = (ACCURACY, FORGETTING, NLL)
    figures: ClassVar[Mapping[str, Draw]] = {"parts": draw_parts}

    def mistakes(self) -> list[str]:
        """More parts than images or classes."""
        mistakes = super().mistakes()
        n_images, known = self.n_train or n_train_rows(self.dataset), n_classes(self.dataset)
        if self.n_parts > n_images:
            mistakes.append(
                f"n_parts <= {n_images} training images must hold, but got n_parts={self.n_parts}"
            )
        if self.parts == "classes" and self.n_parts > known:
            mistakes.append(
                f"n_parts <= {known} classes of {self.dataset} must hold with parts: classes, "
                f"but got n_parts={self.n_parts}"
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
        """Fit once a part; a step is a part."""
        dataset = self.load()
        scored = dataset.holdout(holdout)
        deal_rng, *score_rngs = spawn(rng, 1 + self.n_parts)
        parts = self._deal(dataset, deal_rng)
        check_parts(parts, scored)
        state = checkpoint.load() or {"rows": [], "predictive": None}
        rows, predictive = state["rows"], state["predictive"]
        for step in range(len(rows) + 1, self.n_parts + 1):
            problem = self._problem(dataset, parts[:step])
            predictive, took_prior = self._fit(fit, problem, predictive)
            outputs = predictive.sample(scored.inputs, self.n_samples, rng=score_rngs[step - 1])
            row = score(outputs.detach(), scored, parts[:step]) | {"took_prior": took_prior}
            rows = [*rows, row]
            report(step, summarise(rows))
            checkpoint.save({"rows": rows, "predictive": predictive})
        return Outcome(summarise(rows), tables(rows))

    def _deal(self, dataset: Dataset, rng: torch.Generator) -> list[Split]:
        """The parts, in the order in which they come."""
        train = first(dataset.train, self.n_train)
        if self.parts == "random":
            places = torch.randperm(len(train), generator=rng).tensor_split(self.n_parts)
        else:
            groups = torch.arange(dataset.n_classes).tensor_split(self.n_parts)
            places = tuple(torch.isin(train.targets, group).nonzero()[:, 0] for group in groups)
        return [Split(train.inputs[rows], train.targets[rows]) for rows in places]

    def _problem(self, dataset: Dataset, parts: Sequence[Split]) -> Problem:
        """The last part to learn, or all of them."""
        known = parts if self.carry == "data" else parts[-1:]
        inputs, targets = (torch.cat([getattr(p, k) for p in known]) for k in SPLIT)
        rows = torch.isin(dataset.validation.targets, targets)
        validation = Split(dataset.validation.inputs[rows], dataset.validation.targets[rows])
        return self.problem(dataset, train=Split(inputs, targets), validation=validation)

    def _fit(
        self, fit: Fit, problem: Problem, earlier: Predictive | None
    ) -> tuple[Predictive, bool]:
        """The predictive, and whether the earlier one was its prior."""
        if earlier is None or self.carry == "data":
            return fit(problem), False
        if self.carry == "posterior":
            with contextlib.suppress(UnsupportedError):
                return fit(replace(problem, prior=earlier), warm_start=earlier), True
        return fit(problem, warm_start=earlier), False


def check_parts(parts: Sequence[Split], scored: Split) -> None:
    """Refuse parts that nobody can learn, or be asked about.

    Raises:
        DataError: a part is empty, or none of the images to score on is of its classes.
    """
    for number, part in enumerate(parts, start=1):
        if not len(part):
            raise DataError(
                f"each part must have training images, but part {number} has none; "
                "raise n_train, or lower n_parts"
            )
        if not torch.isin(scored.targets, part.targets).any():
            classes = ", ".join(map(str, sorted({*part.targets.tolist()})))
            raise DataError(
                "each part must have images of its classes to be scored on, but part "
                f"{number} has none of {classes}; add some, or lower n_parts"
            )


def score(outputs: torch.Tensor, scored: Split, parts: Sequence[Split]) -> dict[str, Any]:
    """Scores on all classes, and the accuracy on those of each part so far, %."""
    scores = Categorical(outputs.shape[-1]).scores(outputs, scored.targets)
    right = mixture_log_probs(outputs).argmax(-1) == scored.targets
    of_part = [torch.isin(scored.targets, part.targets) for part in parts]
    return {
        "n_seen": sum(len(part) for part in parts),
        "accuracy": scores["accuracy"],
        "nll": scores["nll"],
        "by_part": [100 * right[rows].double().mean().item() for rows in of_part],
    }


def summarise(rows: Sequence[Row]) -> dict[str, float]:
    """Scores after the last of these parts."""
    last = rows[-1]
    return {"accuracy": last["accuracy"], "forgetting": forgetting(rows), "nll": last["nll"]}


def forgetting(rows: Sequence[Row]) -> float:
    """Best accuracy on a part's classes before the last part less that after it, on average."""
    *earlier, last = [row["by_part"] for row in rows]
    if not earlier:
        return 0.0
    best = [max(by_part[i] for by_part in earlier[i:]) for i in range(len(earlier))]
    return float(np.mean(np.array(best) - np.array(last[: len(best)])))


def tables(rows: Sequence[Row]) -> dict[str, Table]:
    """One row a part; and the accuracy on the classes of each part after each later one."""
    parts = {name: [row[name] for row in rows] for name in ("n_seen", "accuracy", "nll")}
    parts["forgetting"] = [forgetting(rows[: i + 1]) for i in range(len(rows))]
    parts["took_prior"] = [float(row["took_prior"]) for row in rows]
    cells = [(i, j, value) for i, row in enumerate(rows) for j, value in enumerate(row["by_part"])]
    after, part, accuracy = (np.array(column) for column in zip(*cells, strict=True))
    return {
        "parts": {name: np.array(column) for name, column in parts.items()},
        "by_part": {"after": after, "part": part, "accuracy": accuracy},
    }
