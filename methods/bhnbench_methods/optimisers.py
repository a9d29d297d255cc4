"""Optimisers of one flat tensor, ``(R, n_params)``, against a gradient of the same shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch.optim.adam import adam

from bhnbench_methods.schedules import Schedule, constant

_RMS_MEMORY = 0.99  # of the preconditioner's running mean (Li et al., 2016)
_RMS_FLOOR = 1e-3  # of a gradient of the mean loss: less is taken to be as large


class Optimiser(Protocol):
    """Moves the parameters of all replicas; none influences another."""

    def step(self, learning_rate: float, progress: float) -> None:
        """Move by the present gradient; ``progress`` of the fit is in [0, 1)."""


class Adam:
    """Adam (Kingma and Ba, 2015) with the usual constants, in torch's fused kernel.

    ``torch.optim.Adam.step`` takes longer than the kernel itself on a small network.
    """

    def __init__(self, flat: torch.Tensor, grad: torch.Tensor) -> None:
        self.flat, self.grad = [flat], [grad]
        self.means = [torch.zeros_like(flat)]
        self.squares = [torch.zeros_like(flat)]
        self.steps = [torch.zeros((), device=flat.device)]

    @torch.no_grad()
    def step(self, learning_rate: float, progress: float = 0.0) -> None:
        """Move ``flat`` against ``grad``, at any progress."""
        adam(
            self.flat,
            self.grad,
            self.means,
            self.squares,
            [],
            self.steps,
            foreach=False,
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=learning_rate,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )


@dataclass(frozen=True, kw_only=True)
class Langevin:
    """How to sample: ``v' = (1 - friction) v - lr G grad + noise`` and ``w' = w + v'``.

    ``grad`` is that of the negative log posterior over the number of examples N, and the noise
    ``N(0, 2 friction lr temperature G / N)``. With full batches and a fixed G, the chain's
    variance on a Gaussian posterior of precision k is ``temperature / k / (1 - lr G k / (2 N (2 -
    friction)))``: right to first order. While G adapts it is not, at any step size: G then varies
    with w, and the term for its slope is left out.

    A minibatch's gradient has noise of its own, of variance s^2 for a parameter. Were minibatches
    independent, the temperature were higher by about ``lr G s^2 N / (2 friction)``. Those of an
    epoch share out its examples, so their noise sums to zero over an epoch: a chain that moves
    little in one is heated less. Nothing corrects for it.
    """

    friction: float = 1.0  # 1 is plain Langevin dynamics, less keeps momentum
    temperature: float = 1.0
    noise_schedule: Schedule = constant  # of the temperature
    preconditioned: bool = False  # G = 1 / (floor + running root mean square of grad), not 1
    adapts: Schedule = constant  # G is updated where this is not zero, and held elsewhere


class LangevinDynamics:
    """Stochastic-gradient Langevin dynamics, with or without momentum."""

    def __init__(
        self,
        flat: torch.Tensor,
        grad: torch.Tensor,
        rngs: Sequence[torch.Generator],
        n_examples: int,
        how: Langevin,
    ) -> None:
        self.flat, self.grad, self.rngs, self.how = flat, grad, rngs, how
        self.n_examples = n_examples
        self.velocity, self.noise = torch.zeros_like(flat), torch.empty_like(flat)
        self.preconditioner = _Preconditioner(grad) if how.preconditioned else None

    @torch.no_grad()
    def step(self, learning_rate: float, progress: float) -> None:
        """Move ``flat`` against ``grad``, and at random; ``grad`` is used up."""
        if self.preconditioner and self.how.adapts(progress) > 0:
            self.preconditioner.adapt(self.grad)
        root = self.preconditioner.root if self.preconditioner else None
        push = self.grad if root is None else self.grad.mul_(root)
        push.mul_(-learning_rate)
        temperature = self.how.temperature * self.how.noise_schedule(progress)
        if temperature > 0:
            variance = 2 * self.how.friction * learning_rate * temperature / self.n_examples
            push.add_(self._draw(), alpha=math.sqrt(variance))
        self.velocity.mul_(1 - self.how.friction)
        self.velocity.add_(push if root is None else push.mul_(root))
        self.flat.add_(self.velocity)

    def _draw(self) -> torch.Tensor:
        """One standard normal a parameter, from each replica's own stream."""
        for row, rng in zip(self.noise, self.rngs, strict=True):
            row.normal_(generator=rng)
        return self.noise


class _Preconditioner:
    """``G = 1 / (floor + r)``, with r the running root mean square of the gradients seen."""

    def __init__(self, grad: torch.Tensor) -> None:
        self.n_seen = 0
        self.mean_square = torch.zeros_like(grad)
        self.root = torch.full_like(grad, _RMS_FLOOR**-0.5)  # of G

    def adapt(self, grad: torch.Tensor) -> None:
        """Take one more gradient into the mean, whose weights sum to one from the start."""
        self.n_seen += 1
        weight = (1 - _RMS_MEMORY) / (1 - _RMS_MEMORY**self.n_seen)
        self.mean_square.lerp_(grad.square(), weight)
        torch.sqrt(self.mean_square, out=self.root).add_(_RMS_FLOOR).rsqrt_()
