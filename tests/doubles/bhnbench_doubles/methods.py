"""Methods that cost nothing, or go wrong in a chosen way."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch

from bhnbench.contract import Method, Predictive, Problem, Report
from bhnbench.errors import DivergedError, PosteriorWarning
from bhnbench.space import Choice, Float, Int, hyperparameter


@dataclass(frozen=True)
class _Constant:
    value: float

    def sample(
        self, inputs: torch.Tensor, n_samples: int, *, rng: torch.Generator
    ) -> torch.Tensor:
        return torch.full((n_samples, len(inputs), 1), self.value)


@dataclass(frozen=True, kw_only=True)
class Constant(Method):
    """Predicts one number, whatever the data."""

    x: float = hyperparameter(0.5, "the number", valid=Float(0.0, 1.0), search=Float(0.0, 1.0))

    def fit(
        self,
        problem: Problem,
        *,
        rng: torch.Generator,
        report: Report,
        warm_start: Predictive | None = None,
    ) -> Predictive:
        return _Constant(self.x)


@dataclass(frozen=True, kw_only=True)
class Failing(Method):
    """Goes wrong."""

    how: str = hyperparameter(
        "raise",
        "what goes wrong",
        valid=Choice("raise", "diverge", "memory", "exit", "die", "die_once", "unsupported"),
    )
    x: float = hyperparameter(0.5, "the number", valid=Float(0.0, 1.0), search=Float(0.0, 1.0))
    mark: str = hyperparameter("", "die_once: the file that says it has died")

    def supports(self, problem: Problem) -> str | None:
        return "it never works" if self.how == "unsupported" else None

    def fit(
        self,
        problem: Problem,
        *,
        rng: torch.Generator,
        report: Report,
        warm_start: Predictive | None = None,
    ) -> Predictive:
        if self.how == "raise":
            raise RuntimeError("the plugin\nbroke")
        if self.how == "diverge":
            raise DivergedError("loss must be finite, but is nan at step 3 (last finite: 1.5)")
        if self.how == "memory":
            raise MemoryError("16 TiB asked for")
        if self.how == "exit":
            sys.exit(3)
        if self.how == "die" or not Path(self.mark).exists():
            if self.how == "die_once":
                Path(self.mark).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return _Constant(self.x)


@dataclass(frozen=True, kw_only=True)
class Suspect(Method):
    """Warns of its posterior, each time twice; a number in the text depends on the fit."""

    x: float = hyperparameter(0.5, "the number", valid=Float(0.0, 1.0), search=Float(0.0, 1.0))
    n_warnings: int = hyperparameter(1, "how many different ones", valid=Int(0, 1000))
    n_words: int = hyperparameter(3, "length of each", valid=Int(0, 1000))
    other: bool = hyperparameter(False, "warn of something else, too")

    def fit(
        self,
        problem: Problem,
        *,
        rng: torch.Generator,
        report: Report,
        warm_start: Predictive | None = None,
    ) -> Predictive:
        fit = torch.randint(1000, (), generator=rng).item()
        for number in range(self.n_warnings):
            text = f"samples {number} of fit {fit} are equal;\n{'word ' * self.n_words}"
            for _ in range(2):
                warnings.warn(text, PosteriorWarning, stacklevel=2)
        if self.other:
            warnings.warn("something else", UserWarning, stacklevel=2)
        return _Constant(self.x)
