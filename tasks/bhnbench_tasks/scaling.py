"""Inputs and targets in units of the training examples, and predictions back in the original."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bhnbench.contract import Split
from bhnbench.likelihoods import Gaussian


@dataclass(frozen=True)
class Scaling:
    """Shift and scale of every column: ``(value - mean) / sd``."""

    input_mean: torch.Tensor  # (n_inputs,)
    input_sd: torch.Tensor
    target_mean: torch.Tensor  # (n_targets,)
    target_sd: torch.Tensor

    @classmethod
    def of(cls, split: Split) -> Scaling:
        """Makes these examples standardised; a column that is constant is only shifted."""
        return cls(*_moments(split.inputs), *_moments(split.targets))

    @classmethod
    def none(cls, split: Split) -> Scaling:
        """Leaves examples of this shape as they are."""
        inputs, targets = split.inputs[0], split.targets[0]
        return cls(*(f(t) for t in (inputs, targets) for f in (torch.zeros_like, torch.ones_like)))

    def apply(self, split: Split) -> Split:
        """The examples in the new units."""
        targets = (split.targets - self.target_mean) / self.target_sd
        return Split(self.apply_to_inputs(split.inputs), targets)

    def apply_to_inputs(self, inputs: torch.Tensor) -> torch.Tensor:
        """Inputs ``(n, n_inputs)`` in the new units."""
        return (inputs - self.input_mean) / self.input_sd

    def predictions(self, outputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Means and standard deviations of targets in the original units, float64.

        Args:
            outputs: of ``Gaussian``, ``(..., n, 2 n_targets)``, in the new units.
        """
        means, sds = (t.double() for t in Gaussian().split(outputs.detach()))
        return means * self.target_sd + self.target_mean, sds * self.target_sd


def _moments(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    sd, mean = torch.std_mean(values.double(), dim=0, correction=0)
    is_constant = sd <= 1e-9 * mean.abs()  # but for rounding
    sd = torch.where(is_constant, torch.ones_like(sd), sd)
    return mean.to(values.dtype), sd.to(values.dtype)
