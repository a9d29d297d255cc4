"""A table for regression, and the splits on which papers score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from bhnbench.contract import Split

if TYPE_CHECKING:
    import torch

Part = Literal["train", "test"]


@dataclass(frozen=True)
class RegressionTable:
    """Rows of real features, one target each, in raw units: nothing is standardised.

    Attributes:
        name: as in the sweep file.
        inputs: ``(n, d)`` float64.
        targets: ``(n, 1)`` float64.
        n_splits: ways to part the rows.
        rows: numbers of the rows of ("train" or "test", split); read when they are asked for.
    """

    name: str
    inputs: torch.Tensor
    targets: torch.Tensor
    n_splits: int
    rows: Callable[[Part, int], torch.Tensor] = field(repr=False)

    def train(self, k: int) -> Split:
        """What may be learnt from in split ``k``, counted from 0; validation is cut from it."""
        return self._split("train", k)

    def test(self, k: int) -> Split:
        """What is scored on in split ``k``; read only when it is asked for."""
        return self._split("test", k)

    def _split(self, part: Part, k: int) -> Split:
        if not 0 <= k < self.n_splits:
            raise IndexError(f"{self.name}: 0 <= k < {self.n_splits} must hold, but got k={k}")
        rows = self.rows(part, k)
        return Split(self.inputs[rows], self.targets[rows])
