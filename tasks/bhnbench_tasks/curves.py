"""Curves of one input that papers draw predictive bands of, each with its noise and its size."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from bhnbench.contract import Split

Interval = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """Where there are data, what they look like, and how its paper trains on them.

    ``target(x, noise)`` is elementwise, with ``noise ~ N(0, noise_sd^2)``.
    """

    target: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    noise_sd: float
    intervals: tuple[Interval, ...]  # of the inputs of all examples, increasing
    shown: Interval  # where the predictive is drawn
    n_train: int
    epochs: int
    n_hidden: int
    is_scaled: bool  # whether networks see it in units of the training examples

    def draw(self, n: int, noise_sd: float, rng: torch.Generator) -> Split:
        """``n`` examples, uniform on the intervals: inputs and targets ``(n, 1)``."""
        x = _spread(torch.rand(n, 1, generator=rng), self.intervals)
        noise = noise_sd * torch.randn(n, 1, generator=rng)
        return Split(x, self.target(x, noise))

    def truth(self, x: torch.Tensor) -> torch.Tensor:
        """The curve without noise."""
        return self.target(x, torch.zeros_like(x))

    def is_inside(self, x: torch.Tensor) -> torch.Tensor:
        """Whether there are data at ``x``."""
        return torch.stack([(low <= x) & (x <= high) for low, high in self.intervals]).any(0)


def _spread(uniform: torch.Tensor, intervals: tuple[Interval, ...]) -> torch.Tensor:
    """Numbers in [0, 1) to the intervals laid end to end."""
    place = uniform * sum(high - low for low, high in intervals)
    x, start = torch.empty_like(place), 0.0
    for low, high in intervals:
        x = torch.where(place >= start, low + place - start, x)
        start += high - low
    return x


def _blundell(x: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    phase = 2 * math.pi * (x + noise)
    return x + 0.3 * torch.sin(phase) + 0.3 * torch.sin(2 * phase) + noise


def _cubic(x: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    return x**3 + noise


def _sinusoids(x: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    swing = 0.01 * torch.sin(2.5 * x) * x.abs() ** 1.5
    return swing + 0.1 * x - 1 + noise / (0.5 * x).square()


def _gap(x: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    return torch.cos(2 * x) + 0.3 * x + noise


CURVES: Mapping[str, Curve] = {
    "blundell": Curve(
        _blundell,
        noise_sd=0.02,
        intervals=((0.0, 0.5),),
        shown=(-0.5, 1.5),
        n_train=1000,
        epochs=100,
        n_hidden=50,
        is_scaled=False,
    ),
    "cubic": Curve(
        _cubic,
        noise_sd=3.0,
        intervals=((-4.0, 4.0),),
        shown=(-6.0, 6.0),
        n_train=20,
        epochs=1000,
        n_hidden=100,
        is_scaled=True,
    ),
    "sinusoids": Curve(
        _sinusoids,
        noise_sd=1.0,
        intervals=((6.0, 8.0), (9.0, 12.0)),
        shown=(4.0, 14.0),
        n_train=500,
        epochs=200,
        n_hidden=50,
        is_scaled=True,
    ),
    "gap": Curve(
        _gap,
        noise_sd=0.1,
        intervals=((-2.0, -1.0), (1.0, 2.0)),
        shown=(-3.5, 3.5),
        n_train=100,
        epochs=500,
        n_hidden=50,
        is_scaled=True,
    ),
}
