"""Minibatches by index, for R replicas at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from bhnbench.contract import Split

Batch = tuple[torch.Tensor, torch.Tensor]  # inputs, targets


class Minibatches:
    """Minibatches of R training splits, each in an order of its own."""

    def __init__(self, splits: Sequence[Split], batch_size: int) -> None:
        self.n = len(splits[0])
        self.sizes = batch_sizes(self.n, batch_size)
        distinct = {id(split): split for split in splits}  # ensemble members share one
        rows = {key: row for row, key in enumerate(distinct)}
        self.offsets = torch.tensor([[rows[id(split)] * self.n] for split in splits])
        stacked = list(distinct.values())
        if len(stacked) == 1:
            self.inputs, self.targets = stacked[0].inputs, stacked[0].targets
        else:
            self.inputs = torch.cat([split.inputs for split in stacked])
            self.targets = torch.cat([split.targets for split in stacked])

    def epoch(self, rngs: Sequence[torch.Generator]) -> Iterator[Batch]:
        """All examples once, ``(R, batch_size, ...)`` at a time; the last batch may be smaller."""
        orders = torch.stack([torch.randperm(self.n, generator=rng) for rng in rngs])
        orders = (orders + self.offsets).to(self.inputs.device)
        for index in orders.split_with_sizes(self.sizes, dim=1):
            rows = index.reshape(-1)
            inputs = self.inputs.index_select(0, rows)
            targets = self.targets.index_select(0, rows)
            yield (
                inputs.view(*index.shape, *inputs.shape[1:]),
                targets.view(*index.shape, *targets.shape[1:]),
            )

    def input_ranges(self) -> torch.Tensor:
        """Of each input dimension of each replica: its maximum less its minimum."""
        splits = self.inputs.view(-1, self.n, *self.inputs.shape[1:])
        ranges = splits.amax(1, keepdim=True) - splits.amin(1, keepdim=True)
        return ranges[(self.offsets.squeeze(1) // self.n).to(ranges.device)]


def batch_sizes(n: int, batch_size: int) -> list[int]:
    """Full batches and the rest; a rest of one joins the batch before, for batch norm's sake."""
    full, rest = divmod(n, batch_size)
    sizes = [batch_size] * full + ([rest] if rest else [])
    if rest == 1 and full and batch_size > 1:
        sizes[-2:] = [batch_size + 1]
    return sizes
