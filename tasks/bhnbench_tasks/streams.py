"""Random streams of a task, so that methods are compared on common random numbers."""

from __future__ import annotations

import torch


def spawn(rng: torch.Generator, n: int) -> list[torch.Generator]:
    """``n`` CPU streams seeded from ``rng``.

    How much is drawn from one of them (a method's samples, say) does not shift the others.
    """
    seeds = torch.randint(2**63 - 1, (n,), generator=rng)
    return [torch.Generator().manual_seed(seed) for seed in seeds.tolist()]
