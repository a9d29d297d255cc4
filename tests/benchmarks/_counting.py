"""Multiply-adds and bytes of whatever runs in a block, and the least time that they can take."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry


@dataclass(frozen=True)
class Machine:
    """What a device does at best, measured on operations of the benchmark's own size."""

    multiply_adds_per_second: float
    bytes_per_second: float

    @classmethod
    def measure(cls, device: str, n_rows: int, n_inputs: int, n_units: int) -> Machine:
        """From a layer's product, and from the sum of two tensors of its weights' size."""
        x, w = (torch.rand(n, n_inputs, device=device) for n in (n_rows, n_units))
        other, total = torch.rand_like(w), torch.empty_like(w)
        product = fastest(lambda: torch.mm(x, w.T), device)
        addition = fastest(lambda: torch.add(w, other, out=total), device)
        return cls(n_rows * n_inputs * n_units / product, 3 * w.nbytes / addition)


def fastest(operation: Any, device: str, repeats: int = 50) -> float:
    """Seconds."""
    times = []
    for _ in range(repeats):
        synchronise(device)
        start = time.perf_counter()
        operation()
        synchronise(device)
        times.append(time.perf_counter() - start)
    return min(times)


def synchronise(device: str) -> None:
    """Wait for the GPU, if there is one."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


class Counting(TorchDispatchMode):
    """Counts every operation in its block: each reads its arguments once and writes its results.

    ``floor_seconds`` is the time of a machine that does nothing but multiply at its best rate, or
    move bytes at its best rate, whichever takes longer for an operation.
    """

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self.machine = machine
        self.multiply_adds = 0
        self.n_bytes = 0
        self.floor_seconds = 0.0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run one operation and count it."""
        kwargs = kwargs or {}
        results = func(*args, **kwargs)
        if not _is_view(func):
            count = flop_registry.get(func._overloadpacket)
            flops = count(*args, **kwargs, out_val=results) if count else 0
            n_bytes = sum(map(_size, tree_leaves((args, kwargs)))) + _size_of_results(results)
            self.multiply_adds += flops // 2
            self.n_bytes += n_bytes
            self.floor_seconds += max(
                flops / 2 / self.machine.multiply_adds_per_second,
                n_bytes / self.machine.bytes_per_second,
            )
        return results


def _is_view(func: Any) -> bool:
    """Whether an operation moves nothing: its results alias its arguments and are not written."""
    aliases = [result.alias_info for result in func._schema.returns]
    return any(alias is not None and not alias.is_write for alias in aliases)


def _size_of_results(results: Any) -> int:
    return sum(map(_size, tree_leaves(results)))


def _size(leaf: object) -> int:
    """Bytes of a tensor; a broadcast one holds less than it shows."""
    if not isinstance(leaf, torch.Tensor):
        return 0
    return min(leaf.nbytes, leaf.untyped_storage().nbytes())
