"""Orders that are random, and the same for ever: on every machine, with every library."""

from __future__ import annotations

import hashlib
from functools import cache
from typing import TYPE_CHECKING

from bhnbench.contract import Split

if TYPE_CHECKING:
    import torch

N_SPLITS = 20  # of a table that brings none


def shuffled(n: int, *, salt: str = "") -> list[int]:
    """The numbers below ``n`` in the order of their digests; another salt, another order."""
    return sorted(range(n), key=lambda row: hashlib.sha256(f"{salt}{row}".encode()).digest())


@cache
def order_by_hash(n: int, salt: str) -> torch.Tensor:
    """``shuffled`` as a tensor, worked out once a process for all runs: never modify it."""
    import torch

    return torch.tensor(shuffled(n, salt=salt), dtype=torch.long)


def distinct(split: Split) -> Split:
    """The first of all rows with the same inputs, so that no two parts hold the same one."""
    rows: dict[bytes, int] = {}
    for row, inputs in enumerate(split.inputs.numpy()):
        rows.setdefault(inputs.tobytes(), row)
    kept = list(rows.values())
    return Split(split.inputs[kept], split.targets[kept])


def deal(split: Split) -> tuple[Split, Split, Split]:
    """Train, validation and test rows, 60 : 20 : 20, of rows that nobody has dealt out yet."""
    rows = shuffled(len(split))
    first, second = round(0.6 * len(rows)), round(0.8 * len(rows))
    train, validation, test = (
        Split(split.inputs[part], split.targets[part])
        for part in (rows[:first], rows[first:second], rows[second:])
    )
    return train, validation, test


def split_by_hash(n: int, part: str, k: int) -> torch.Tensor:
    """Rows of the "train" or "test" part of split ``k``: a tenth, one at least, is for test."""
    rows = order_by_hash(n, f"split {k}, row ")
    n_test = max(round(n / 10), 1)
    return rows[:n_test] if part == "test" else rows[n_test:]
