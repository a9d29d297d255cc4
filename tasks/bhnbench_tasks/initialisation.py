"""A network that starts from the same weights whenever it is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class FixedInitialisation:
    """Makes a network with the same initial weights every time. Picklable.

    A method seeds torch's global stream anew for each network that it makes; here the seed is
    one's own. So all members of an ensemble start alike too. What a method adds to the network
    (variances, a flow, masks) is none of its business, and stays as random as before.
    """

    make: Callable[[], nn.Module]
    seed: int

    def __call__(self) -> nn.Module:
        """The network, on the CPU; torch's global stream is left as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seed)
            return self.make()
