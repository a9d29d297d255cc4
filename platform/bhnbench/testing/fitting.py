"""Fitting methods within the laws, and what is heard while they fit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import torch

from bhnbench.contract import Method, Predictive, Problem
from bhnbench.errors import StopRunError
from bhnbench.seeds import make_rng

Points = list[tuple[int, dict[str, float]]]


@dataclass
class Listener:
    """A ``report`` that remembers, and may end the run."""

    stop_at: int | None = None  # the report that raises, counted from 1
    points: Points = field(default_factory=list)

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        """Hear one report."""
        self.points.append((step, dict(metrics)))
        if self.stop_at is not None and len(self.points) >= self.stop_at:
            raise StopRunError


def fit(
    method: Method,
    problem: Problem,
    *,
    seed: int = 1,
    listener: Listener | None = None,
    warm_start: Predictive | None = None,
) -> Predictive:
    """Fit with the random stream of a seed."""
    report = listener or Listener()
    return method.fit(problem, rng=fit_rng(seed), report=report, warm_start=warm_start)


def fit_rng(seed: int) -> torch.Generator:
    """The random stream of a fit."""
    return make_rng(stream="fit", seed=seed)


def draw(
    predictive: Predictive, inputs: torch.Tensor, *, n_samples: int = 12, seed: int = 1
) -> torch.Tensor:
    """Samples of the outputs, with the random stream of a seed."""
    rng = make_rng(stream="sample", seed=seed)
    return predictive.sample(inputs, n_samples, rng=rng)


def check_points(points: Points, who: str) -> None:
    """Reports have increasing whole steps and finite numbers."""
    steps = [step for step, _ in points]
    right = all(type(step) is int for step in steps) and all(a < b for a, b in pairwise(steps))
    assert right, f"{who}: steps must be increasing whole numbers, but got {steps}"
    for step, metrics in points:
        assert metrics, f"{who}: a report must hold a metric, but that of step {step} is empty"
        bad = {
            name: value
            for name, value in metrics.items()
            if not isinstance(name, str) or not math.isfinite(float(value))
        }
        assert not bad, f"{who}: metrics must be finite and have names, but step {step} has {bad}"
