"""Tasks that cost nothing."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch

from bhnbench.contract import (
    Checkpoint,
    Fit,
    Holdout,
    Metric,
    Outcome,
    Problem,
    Report,
    Split,
    Task,
)
from bhnbench.likelihoods import Gaussian
from bhnbench.space import Float, Int, setting

SCORE = Metric("closeness", "maximize", "", "minus the distance to the target")


def _problem() -> Problem:
    split = Split(torch.zeros(4, 1), torch.zeros(4, 1))
    return Problem(split, split, Gaussian(), partial(torch.nn.Linear, 1, 2), 1, 4)


@dataclass(frozen=True, kw_only=True)
class Guess(Task):
    """Is the predicted number near the target? A little noise depends on the seed."""

    metrics: ClassVar[tuple[Metric, ...]] = (SCORE,)

    target: float = setting(0.3, "the number to guess")
    n_steps: int = setting(0, "steps reported", valid=Int(0, 1000))
    seconds: float = setting(0.0, "duration of a step", valid=Float(0.0, 100.0))

    def evaluate(
        self,
        fit: Fit,
        *,
        holdout: Holdout,
        rng: torch.Generator,
        report: Report,
        checkpoint: Checkpoint,
    ) -> Outcome:
        log = os.environ.get("BHNBENCH_TEST_LOG")  # gets one line an execution
        if log:
            with open(log, "a") as file:  # noqa: PTH123 - appends whole lines
                file.write(f"{holdout} {os.getpid()}\n")
        predictive = fit(_problem())
        guess = predictive.sample(torch.zeros(1, 1), 1, rng=rng).item()
        noise = 0.01 * torch.rand((), generator=rng).item()
        closeness = -abs(guess - self.target) - noise
        for step in range(1, self.n_steps + 1):
            time.sleep(self.seconds)
            report(step, {"closeness": closeness * (1 + 1 / step)})
        return Outcome(
            {"closeness": closeness}, {"guesses": {"guess": torch.tensor([guess]).numpy()}}
        )


@dataclass(frozen=True, kw_only=True)
class Poisoned(Task):
    """Its test targets are not a number: whoever lets them in gets no finite score."""

    metrics: ClassVar[tuple[Metric, ...]] = (SCORE,)

    def evaluate(
        self,
        fit: Fit,
        *,
        holdout: Holdout,
        rng: torch.Generator,
        report: Report,
        checkpoint: Checkpoint,
    ) -> Outcome:
        target = {"validation": 0.3, "test": float("nan")}[holdout]
        guess = fit(_problem()).sample(torch.zeros(1, 1), 1, rng=rng).item()
        return Outcome({"closeness": -abs(guess - target)})
