"""A network that generates the numbers of another one, group by group, from noise."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import nn

_N_STANDARDISED = 256  # draws that scale the generator at the start
_SLOPE = 0.1  # of leaky ReLU units below zero


class Generator(nn.Module):
    """Groups of numbers from noise: one trunk, told by a one-hot code which group it is to make.

    Every group has a linear head of its own on top. Without ``hidden`` units the numbers are
    affine in the noise, and so Gaussian. They start with mean zero and ``initial_sd``.
    """

    codes: torch.Tensor

    def __init__(
        self, sizes: Sequence[int], n_noise: int, hidden: Sequence[int], initial_sd: float
    ) -> None:
        super().__init__()
        self.register_buffer("codes", torch.eye(len(sizes)).unsqueeze(1))
        widths = [len(sizes) + n_noise, *hidden]
        layers: list[nn.Module] = []
        for width, next_width in pairwise(widths):
            layers += [nn.Linear(width, next_width), nn.LeakyReLU(_SLOPE)]
        self.trunk = nn.Sequential(*layers)
        self.heads = nn.ModuleList(nn.Linear(widths[-1], size) for size in sizes)
        self._standardise(torch.randn(_N_STANDARDISED, 1, n_noise), initial_sd)

    def forward(self, noise: torch.Tensor) -> torch.Tensor:
        """Numbers ``(n, sum of sizes)`` from noise ``(n, 1 or n_groups, n_noise)``."""
        features = zip(self.heads, self._features(noise), strict=True)
        return torch.cat([head(feature) for head, feature in features], dim=-1)

    def _features(self, noise: torch.Tensor) -> torch.Tensor:
        """``(n_groups, n, width)``."""
        n_groups, n = len(self.heads), len(noise)
        codes = self.codes.expand(-1, n, -1)
        noises = noise.transpose(0, 1).expand(n_groups, -1, -1)
        features: torch.Tensor = self.trunk(torch.cat((codes, noises), dim=-1))
        return features

    def _standardise(self, noise: torch.Tensor, sd: float) -> None:
        with torch.no_grad():
            for head, features in zip(self.heads, self._features(noise), strict=True):
                linear = cast("nn.Linear", head)
                sds, means = torch.std_mean(features @ linear.weight.mT, dim=0)
                linear.weight.mul_((sd / sds).unsqueeze(-1))
                linear.bias.copy_(-sd * means / sds)
