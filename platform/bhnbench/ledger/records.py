"""What the ledger answers with: plain, frozen values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NamedTuple

from bhnbench.runs import FINAL_FAILURES, Cost, RunState
from bhnbench.space import Value
from bhnbench.specs import Phase, RunSpec, StudySpec

LEFT_RUNNING = "the sweep ended while it ran"


def settled(state: str, failure: str | None) -> bool:
    """Whether a trial ended in a way that counts: done, stopped early, or failed for good."""
    return state in ("done", "pruned") or failure in FINAL_FAILURES


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
        return settled(self.state, self.failure)

    def as_left(self) -> TrialRecord:
        """The trial once its driver is gone: interrupted, if it was under way."""
        if self.state != "running":
            return self
        return replace(self, state="failed", failure="interrupted")


@dataclass(frozen=True)
class FailedRun:
    """As much of a run as says what went wrong."""

    id: int
    phase: Phase
    seed: int
    failure: str | None
    message: str


@dataclass(frozen=True)
class WarnedRun:
    """As much of a run as says what its method warned of."""

    id: int
    phase: Phase
    seed: int
    warnings: Sequence[str]


@dataclass(frozen=True)
class Tally:
    """The first trials of a study, counted: there may be very many."""

    ends: Mapping[tuple[str, str | None], int] = field(default_factory=dict)  # (state, failure)
    best: TrialRecord | None = None  # the done trial of best value, the earliest among equals
    failed: Sequence[FailedRun] = ()  # runs of failed trials, in the trials' order
    n_runs: int = 0  # those of the trials, each once
    seconds: float = 0.0  # spent on them
    started_at: datetime | None = None  # the first of them
    finished_at: datetime | None = None  # the last that ended

    def count(self, state: str) -> int:
        """Trials in a state."""
        return sum(n for (known, _), n in self.ends.items() if known == state)

    @property
    def n_ended(self) -> int:
        """Trials that ended in some way, be it only until the next sweep tries again."""
        return sum(self.ends.values()) - self.count("running")

    @property
    def n_settled(self) -> int:
        """Trials that ended in a way that counts."""
        return sum(n for (state, failure), n in self.ends.items() if settled(state, failure))


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


@dataclass(frozen=True)
class SweepTitle:
    """As much of a sweep as tells it from others."""

    id: int
    name: str
    tasks: Sequence[str]  # their labels
