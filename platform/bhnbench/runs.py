"""What became of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from bhnbench.contract import Outcome

RunState = Literal["running", "done", "pruned", "failed"]
Failure = Literal[
    "diverged", "unsupported", "quarantined", "out_of_memory", "interrupted", "error"
]
FINAL_FAILURES: frozenset[str] = frozenset({"diverged", "unsupported", "quarantined"})
"""Failures that would happen again; the others are tried again by the next `bhnbench sweep`."""

Point = tuple[int, Mapping[str, float]]  # (step, {metric: value})


@dataclass(frozen=True)
class Cost:
    """What a run used."""

    fit_seconds: float = 0.0
    score_seconds: float = 0.0  # everything but fitting
    peak_memory_mb: float | None = None

    @property
    def seconds(self) -> float:
        """Fitting and scoring together."""
        return self.fit_seconds + self.score_seconds


@dataclass(frozen=True)
class RunResult:
    """How a run ended, and all it left behind."""

    state: RunState
    outcome: Outcome | None = None
    failure: Failure | None = None
    message: str = ""
    points: Sequence[Point] = ()
    warnings: Sequence[str] = ()  # about the posterior, each text once
    cost: Cost = field(default_factory=Cost)
    provenance: Mapping[str, Any] = field(default_factory=dict)
