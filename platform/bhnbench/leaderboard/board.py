"""What a leaderboard says: plain, frozen values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bhnbench.contract import Direction
from bhnbench.space import Value
from bhnbench.statistics import Summary


@dataclass(frozen=True)
class SeedRun:
    """One planned evaluation run."""

    seed: int
    state: str  # as in the ledger, or "not run"
    run_id: int | None  # `bhnbench show` takes it
    run_key: str | None
    scores: Mapping[str, float]  # empty unless done
    failure: str | None
    message: str
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class Chosen:
    """The configuration that was evaluated, and where it comes from."""

    configuration: Mapping[str, Value]  # all hyperparameters
    searched: tuple[str, ...]  # those that the search chose; empty without search
    fixed: tuple[str, ...] = ()  # those that the sweep file set; the others have their defaults
    trial: int | None = None
    run_id: int | None = None  # of the trial
    validation: float | None = None  # the trial's score, in the study's own metric


@dataclass(frozen=True)
class Search:
    """How a study's search went."""

    n_trials: int  # planned
    n_ended: int
    failures: Mapping[str, int]  # failed trials by class
    example: str  # one failure in words

    @property
    def over(self) -> bool:
        """Whether the configuration is frozen."""
        return self.n_ended >= self.n_trials


@dataclass(frozen=True)
class StudyCost:
    """What a study used."""

    fit_seconds: float | None  # mean of its done evaluation runs
    total_seconds: float  # all its runs, search included
    peak_memory_mb: float | None  # highest of its done evaluation runs


@dataclass(frozen=True)
class Versus:
    """A method against the first of its table, over the seeds that both have."""

    difference: Summary  # method minus first, in the metric's own sign
    p_value: float | None  # Holm-adjusted; None where fewer than two seeds are common


@dataclass(frozen=True)
class MethodRow:
    """One method on one task."""

    label: str
    rank: int | None  # None without a single score
    score: Summary | None
    versus: Versus | None  # None for the first, and where no seed is common
    metrics: Mapping[str, Summary]
    seeds: tuple[SeedRun, ...]
    chosen: Chosen | None  # None while the search goes on, or where it found nothing
    search: Search
    cost: StudyCost
    reason: str  # why there is no rank; empty where there is one

    def scores(self, metric: str) -> dict[int, float]:
        """The scores by seed."""
        return {run.seed: run.scores[metric] for run in self.seeds if metric in run.scores}

    @property
    def run_ids(self) -> list[int]:
        """The done evaluation runs."""
        return [run.run_id for run in self.seeds if run.scores and run.run_id is not None]

    @property
    def warned(self) -> list[SeedRun]:
        """The evaluation runs that carry warnings."""
        return [run for run in self.seeds if run.warnings]

    @property
    def gap(self) -> str:
        """What is missing, such as "3/5: 2 diverged"; empty where nothing is."""
        missing = Counter(run.failure or run.state for run in self.seeds if not run.scores)
        if not missing:
            return ""
        return f"{len(self.run_ids)}/{len(self.seeds)}: {counts(missing)}"


@dataclass(frozen=True)
class TaskTable:
    """The methods on one task, best first, those without a score last."""

    label: str
    plugin: str  # the task's installed name
    metric: str
    direction: Direction
    unit: str
    chosen_by: str  # the metric by which the searches chose
    rows: tuple[MethodRow, ...]
    code: tuple[str, ...] = ()  # packages, with commits, that made the evaluation runs


@dataclass(frozen=True)
class Leaderboard:
    """All tasks of a sweep."""

    sweep: str
    n_seeds: int
    n_left: int  # runs that the next `bhnbench sweep` would execute
    tables: tuple[TaskTable, ...]
    without_metric: tuple[str, ...] = ()  # tasks left out, since they lack the metric asked for


def counts(numbers: Mapping[str, int]) -> str:
    """In words, such as "2 diverged, 1 error"."""
    return ", ".join(f"{number} {name}" for name, number in numbers.items())
