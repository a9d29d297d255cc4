"""Tasks that cost nothing."""

from __future__ import annotations

import os
import signal
import time
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
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
from bhnbench.space import Choice, Float, Int, setting

SCORE = Metric("closeness", "maximize", "", "minus the distance to the target")


def make_marker() -> None:
    """What no checkpoint may call."""
    Path("marker").mkdir()


def tiny_problem() -> Problem:
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
        predictive = fit(tiny_problem())
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
        guess = fit(tiny_problem()).sample(torch.zeros(1, 1), 1, rng=rng).item()
        return Outcome({"closeness": -abs(guess - target)})


@dataclass(frozen=True, kw_only=True)
class Odd(Task):
    """Returns, reports and raises what no task should."""

    metrics: ClassVar[tuple[Metric, ...]] = (SCORE,)

    how: str = setting(
        "fine", "what is odd", valid=Choice("fine", "numpy", "object", "nested", "name", "message")
    )

    def evaluate(
        self,
        fit: Fit,
        *,
        holdout: Holdout,
        rng: torch.Generator,
        report: Report,
        checkpoint: Checkpoint,
    ) -> Outcome:
        if self.how == "message":
            raise RuntimeError("half a character \ud800 and a \0")
        tables: dict[str, dict[str, Any]] = {
            "numpy": {"a": np.array([1.0, np.nan], np.float32), "b": [np.float32(1), 2]},
            "object": {"a": [object(), None]},
            "nested": {"a": [[1.0, float("nan")]]},
        }
        report(np.int64(1), {"closeness": np.float32(-1)})
        name = "n" * 200 if self.how == "name" else "table"
        return Outcome({"closeness": np.float32(-1)}, {name: tables.get(self.how, {"a": [1]})})


@dataclass(frozen=True, kw_only=True)
class Rounds(Task):
    """Fits once a round, keeps its progress, and will hear of no warning itself."""

    metrics: ClassVar[tuple[Metric, ...]] = (SCORE,)

    n_rounds: int = setting(3, "fits", valid=Int(1, 1000))
    breaks: str = setting("", "a file: where there is none, round 2 makes it and breaks")
    kills: bool = setting(False, "round 2 kills the process instead")
    seconds: float = setting(0.0, "that a round takes", valid=Float(0, 60))

    def evaluate(
        self,
        fit: Fit,
        *,
        holdout: Holdout,
        rng: torch.Generator,
        report: Report,
        checkpoint: Checkpoint,
    ) -> Outcome:
        first = checkpoint.load() or 1
        for number in range(first, self.n_rounds + 1):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                fit(tiny_problem())
            time.sleep(self.seconds)
            if log := os.environ.get("BHNBENCH_TEST_LOG"):
                with Path(log).open("a") as file:
                    file.write(f"round {number}\n")
            checkpoint.save(number + 1)
            if number == 2 and self.breaks and not Path(self.breaks).exists():
                Path(self.breaks).touch()
                if self.kills:
                    os.kill(os.getpid(), signal.SIGKILL)
                raise RuntimeError("broken")
        return Outcome({"closeness": 0.0})
