"""Networks that the tasks hand to methods: ordinary torch modules."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn


def mlp(n_inputs: int, n_hidden: int, n_layers: int, n_outputs: int) -> nn.Sequential:
    """``n_layers`` hidden layers of ReLU units: ``(n, n_inputs) -> (n, n_outputs)``."""
    sizes = [n_inputs] + n_layers * [n_hidden]
    layers: list[nn.Module] = []
    for width, next_width in pairwise(sizes):
        layers += [nn.Linear(width, next_width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], n_outputs))


class Homoscedastic(nn.Module):
    """A regression network with one learned noise scale for all inputs.

    Outputs ``(n, 2)``: the mean, and the raw scale of ``bhnbench.likelihoods.Gaussian``.
    """

    def __init__(self, n_hidden: int, n_layers: int = 1) -> None:
        super().__init__()
        self.mean = mlp(1, n_hidden, n_layers, 1)
        self.raw_scale = nn.Parameter(torch.tensor(-1.0))  # a standard deviation of 0.31

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Inputs ``(n, 1)`` to outputs ``(n, 2)``."""
        mean = self.mean(inputs)
        return torch.cat([mean, self.raw_scale.expand_as(mean)], dim=-1)
