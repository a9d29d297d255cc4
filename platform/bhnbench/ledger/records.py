"""What the ledger answers with: plain, frozen values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple

from bhnbench.runs import FINAL_FAILURES, Cost, RunState
from bhnbench.space import Value
from bhnbench.specs import RunSpec, StudySpec

LEFT_RUNNING = "the sweep ended while it ran"


@dataclass(frozen=True)
class RunRecord:
    """A run as the ledger knows it."""

    id: int
    key: str
    spec: RunSpec
    state: RunState
    failure: str | None
    message: str
    attempts: int
    warnings: Sequence[str]
    cost: Cost
    started_at: datetime | None
    finished_at: datetime | None
    provenance: Mapping[str, Any]
    scores: Mapping[str, float]

    @property
    def settled(self) -> bool:
        """Done, or failed in a way that would happen again."""
        return self.state == "done" or self.failure in FINAL_FAILURES

    def as_left(self) -> RunRecord:
        """The run once its driver is gone: interrupted, if it was under way."""
        if self.state != "running":
            return self
        return replace(self, state="failed", failure="interrupted", message=LEFT_RUNNING)


class TrialRef(NamedTuple):
    """Which trial a run serves."""

    study_id: int
    number: int
    configuration: Mapping[str, Value]


@dataclass(frozen=True)
class TrialRecord:
    """A trial as the ledger knows it."""

    number: int
    configuration: Mapping[str, Value]
    state: RunState
    failure: str | None
    value: float | None
    last_step: int | None
    run_id: int

    @property
    def ended(self) -> bool:
        """Ended in some way; a failure that may pass is tried again by the next sweep."""
        return self.state != "running"

    @property
    def settled(self) -> bool:
        """Ended in a way that counts: done, stopped early, or failed for good."""
        return self.state in ("done", "pruned") or self.failure in FINAL_FAILURES

    def as_left(self) -> TrialRecord:
        """The trial once its driver is gone: interrupted, if it was under way."""
        if self.state != "running":
            return self
        return replace(self, state="failed", failure="interrupted")


@dataclass(frozen=True)
class StudyRecord:
    """A study and its place in a sweep."""

    id: int | None  # None: not in the ledger yet
    spec: StudySpec
    n_trials: int


@dataclass(frozen=True)
class SweepRecord:
    """A sweep as the ledger knows it."""

    id: int
    name: str
    document: Mapping[str, Any]
    n_seeds: int
    created_at: datetime  # started first
    started_at: datetime  # started last
    finished_at: datetime | None
    studies: Sequence[StudyRecord]
