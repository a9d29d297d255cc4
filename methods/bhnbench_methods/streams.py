"""Random streams: everything random in a fit is derived from one draw of its ``rng``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

_SEEDS = 2**63 - 1


@dataclass(frozen=True)
class Streams:
    """The random streams of one replica; drawing from one leaves the others as they are."""

    init: int  # seed of the initialisation
    forward: int  # seed of random layers in the user's own network
    order: torch.Generator  # order of the examples
    noise: torch.Generator  # noise of the method, on the device of the problem

    @classmethod
    def draw(cls, rng: torch.Generator, device: torch.device) -> Streams:
        """Fork ``rng``, which advances by one draw."""
        seeds = torch.randint(_SEEDS, (4,), generator=rng).tolist()
        init, forward, order, noise = seeds
        return cls(
            init,
            forward,
            order=torch.Generator().manual_seed(order),
            noise=torch.Generator(device).manual_seed(noise),
        )


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global stream within the block and give it back as it was.

    Layers initialise themselves, and ``torch.nn.Dropout`` draws, from the global stream.
    """
    on_cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if on_cuda else []):
        torch.default_generator.manual_seed(seed)
        if on_cuda:
            torch.cuda.manual_seed_all(seed)
        yield
