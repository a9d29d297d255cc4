"""Where a study stands: read from the ledger, for status, plan, progress and tracking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from bhnbench.ledger.ledger import Ledger
from bhnbench.ledger.records import (
    FailedRun,
    RunRecord,
    StudyRecord,
    Tally,
    TrialRecord,
    WarnedRun,
)  # fmt: skip
from bhnbench.space import Value
from bhnbench.specs import RunSpec, StudySpec

NO_TRIALS = Tally()


@dataclass(frozen=True)
class StudyStatus:
    """One study of one sweep, trials and evaluation runs together."""

    study: StudySpec
    n_trials: int
    n_seeds: int
    search: Tally  # of the sweep's first n_trials
    evaluations: Sequence[RunRecord]  # known runs of the frozen best, by seed
    expected_seconds: float | None = None  # of one run, from runs already known; of a plan

    @property
    def best(self) -> TrialRecord | None:
        """The best of all trials that are done so far."""
        return self.search.best

    @property
    def search_over(self) -> bool:
        """Whether every trial ended, so that the best of them is evaluated."""
        return self.search.n_ended >= self.n_trials

    @property
    def hopeless(self) -> bool:
        """Whether the search ended without a single configuration to evaluate."""
        return self.n_trials > 0 and self.search_over and self.best is None

    @property
    def configuration(self) -> Mapping[str, Value]:
        """The best configuration so far: all hyperparameters."""
        chosen = self.best.configuration if self.best else {}
        return {**self.study.method.settings, **chosen}

    def count(self, state: str, *, phase: str) -> int:
        """Trials (phase ``search``) or evaluation runs in a state."""
        if phase == "search":
            return self.search.count(state)
        return sum(run.state == state for run in self.evaluations)

    @property
    def n_left(self) -> int:
        """Runs that the next `bhnbench sweep` would execute."""
        left = self.n_trials - self.search.n_settled
        if not self.hopeless:
            left += self.n_seeds - sum(run.settled for run in self.evaluations)
        return left

    @property
    def failures(self) -> list[FailedRun]:
        """The failed runs; a run that only another study's retry failed is none of ours."""
        failed = [run for run in self.evaluations if run.state == "failed"]
        evaluations = [
            FailedRun(run.id, run.spec.phase, run.spec.seed, run.failure, run.message)
            for run in failed
        ]
        return [*self.search.failed, *evaluations]

    @property
    def n_runs(self) -> int:
        """The runs of its trials and its evaluation, each once, whoever asked for them."""
        return self.search.n_runs + len(self.evaluations)

    @property
    def n_ended(self) -> int:
        """Trials and evaluation runs that have ended."""
        return self.search.n_ended + sum(run.state != "running" for run in self.evaluations)

    @property
    def started_at(self) -> datetime | None:
        """When the first of its runs was started, the last time."""
        starts = [self.search.started_at, *(run.started_at for run in self.evaluations)]
        return min((start for start in starts if start), default=None)

    @property
    def finished_at(self) -> datetime | None:
        """When the last of its runs ended."""
        ends = [self.search.finished_at, *(run.finished_at for run in self.evaluations)]
        return max((end for end in ends if end), default=None)

    @property
    def seconds(self) -> float:
        """Time spent on the study's runs."""
        return self.search.seconds + sum(run.cost.seconds for run in self.evaluations)


def evaluation_specs(
    study: StudySpec, configuration: Mapping[str, Value], n_seeds: int
) -> list[RunSpec]:
    """The evaluation runs of a configuration: seeds 1 ... n, which no search has used."""
    return [study.run(configuration, "evaluate", seed) for seed in range(1, n_seeds + 1)]


def study_statuses(
    ledger: Ledger, studies: Sequence[StudyRecord], n_seeds: int
) -> list[StudyStatus]:
    """Where each study stands."""
    tallies = ledger.tallies(studies)
    found = [tallies.get(study.id, NO_TRIALS) if study.id else NO_TRIALS for study in studies]
    planned = [
        _planned(study, tally, n_seeds) for study, tally in zip(studies, found, strict=True)
    ]
    known = ledger.runs(key for keys in planned for key in keys)
    return [
        StudyStatus(
            study=study.spec,
            n_trials=study.n_trials,
            n_seeds=n_seeds,
            search=tally,
            evaluations=[known[key] for key in keys if key in known],
        )
        for study, tally, keys in zip(studies, found, planned, strict=True)
    ]


def _planned(study: StudyRecord, tally: Tally, n_seeds: int) -> list[str]:
    """The keys of a study's evaluation runs, once its search has chosen."""
    best = tally.best
    if tally.n_ended < study.n_trials or (best is None and study.n_trials):
        return []
    specs = evaluation_specs(study.spec, best.configuration if best else {}, n_seeds)
    return [spec.key for spec in specs]


def warned_runs(
    ledger: Ledger, studies: Sequence[StudyRecord], statuses: Sequence[StudyStatus]
) -> list[list[WarnedRun]]:
    """Of each study, the runs that carry warnings."""
    of_trials = ledger.warned_trial_runs(studies)
    return [
        [
            *of_trials.get(study.id or 0, ()),
            *(
                WarnedRun(run.id, run.spec.phase, run.spec.seed, run.warnings)
                for run in status.evaluations
                if run.warnings
            ),
        ]
        for study, status in zip(studies, statuses, strict=True)
    ]
