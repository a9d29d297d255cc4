"""Adversarial attacks: images moved, within a box around them, to where a loss is high.

An attacker of a random classifier attacks its mean class probabilities, estimated from a few
posterior samples of his own ("expectation over transformation": Athalye, Engstrom, Ilyas and
Kwok, 2018, "Synthesizing robust adversarial examples", section 2.1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from bhnbench.contract import Predictive, Split
from bhnbench.metrics import mixture_log_probs
from bhnbench_tasks.streams import spawn

MAX_FORWARD = 2048  # images times posterior samples in one backward pass: bounds the memory
Loss = Callable[[torch.Tensor, torch.Tensor, torch.Generator], torch.Tensor]
"""``loss(inputs, targets, rng) -> (n,)`` in nats; what is random comes from ``rng``."""
Attack = Callable[[float], torch.Tensor]
"""``attack(step)``: the images, no pixel moved by more than ``step``."""


def log_odds(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Log odds against the target class under the mean class probabilities, ``(n,)``.

    It rises with the log loss, so that attacks on either go the same way, but its gradient does
    not vanish where the target's probability rounds to 1: all confidence is no defence.

    Args:
        logits: of posterior samples, ``(n_samples, n, n_classes)``.
        targets: ``(n,)``.
    """
    log_probs = mixture_log_probs(logits)
    is_target = F.one_hot(targets, log_probs.shape[-1]).bool()
    against = log_probs.masked_fill(is_target, -torch.inf).logsumexp(-1)
    return against - log_probs[is_target]


@dataclass(frozen=True)
class MixtureLoss:
    """``log_odds`` under ``n_samples`` posterior samples."""

    predictive: Predictive
    n_samples: int

    def __call__(
        self, inputs: torch.Tensor, targets: torch.Tensor, rng: torch.Generator
    ) -> torch.Tensor:
        """Fresh samples, the same for all inputs."""
        return log_odds(self.predictive.sample(inputs, self.n_samples, rng=rng), targets)


@dataclass(frozen=True)
class Target:
    """The images that are attacked, and the loss that an attacker raises on them."""

    split: Split
    loss: Loss
    n_samples: int = 1  # that one loss draws
    low: float = -torch.inf  # of a pixel
    high: float = torch.inf

    def losses(self, inputs: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        """Loss of each image, ``(n,)``."""
        with torch.no_grad():
            return self._in_batches(self.loss, inputs, rng)

    def gradient(self, inputs: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        """Gradient of each image's loss by its pixels; 0 where the loss does not depend on it."""
        return self._in_batches(self._gradient, inputs, rng)

    def _gradient(
        self, inputs: torch.Tensor, targets: torch.Tensor, rng: torch.Generator
    ) -> torch.Tensor:
        inputs = inputs.detach().requires_grad_()
        with torch.enable_grad():
            total = self.loss(inputs, targets, rng).sum()
        if not total.requires_grad:
            return torch.zeros_like(inputs)
        (gradient,) = torch.autograd.grad(total, inputs, materialize_grads=True)
        return gradient.detach()

    def _in_batches(self, run: Loss, inputs: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        """Every batch meets the same posterior samples, so that their size changes nothing."""
        size = max(MAX_FORWARD // self.n_samples, 1)
        batches = zip(*(torch.split(t, size) for t in (inputs, self.split.targets)), strict=True)
        return torch.cat([run(x, targets, rng.clone_state()) for x, targets in batches])


def fast_gradient_sign(target: Target, rng: torch.Generator) -> Attack:
    """One step along the sign of the gradient: Goodfellow, Shlens and Szegedy (2015).

    "Explaining and harnessing adversarial examples", section 4. The gradient is that at the
    images themselves, the same for all steps.
    """
    images = target.split.inputs
    direction = target.gradient(images, rng).sign()
    return lambda step: (images + step * direction).clamp(target.low, target.high)


def projected_gradient(target: Target, rng: torch.Generator, n_steps: int) -> Attack:
    """``n_steps`` steps along signs from a random start: Madry et al. (2018).

    "Towards deep learning models resistant to adversarial attacks", section 2.1. The gradient of
    each step has fresh posterior samples. A step goes 2.5 / ``n_steps`` of the way from an image
    to a side of its box, so that the whole box can be crossed. At the end each image takes the
    single step of ``fast_gradient_sign`` instead if that has the higher loss: so where nothing
    is random this attack is never weaker.
    """
    images = target.split.inputs
    start_rng, single_rng, last_rng, *step_rngs = spawn(rng, 3 + n_steps)
    single = fast_gradient_sign(target, single_rng)
    start = torch.rand(images.shape, generator=start_rng).to(images)

    def attack(step: float) -> torch.Tensor:
        low, high = (images - step).clamp(min=target.low), (images + step).clamp(max=target.high)
        moved = low + (high - low) * start
        for step_rng in step_rngs:
            direction = target.gradient(moved, step_rng.clone_state()).sign()
            moved = (moved + 2.5 * step / n_steps * direction).clamp(low, high)
        return _stronger(target, moved, single(step), last_rng)

    return attack


def _stronger(
    target: Target, first: torch.Tensor, second: torch.Tensor, rng: torch.Generator
) -> torch.Tensor:
    """Of each image the version with the higher loss under the same posterior samples."""
    wins = target.losses(first, rng) > target.losses(second, rng)
    return torch.where(wins.view(-1, *(1,) * (first.ndim - 1)), first, second)
