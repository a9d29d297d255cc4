"""Where a study stands: read from the ledger, for status, plan, progress and tracking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bhnbench.ledger.ledger import Ledger
from bhnbench.ledger.records import RunRecord, StudyRecord, TrialRecord
from bhnbench.selection import best_trial
from bhnbench.space import Value
from bhnbench.specs import RunSpec, StudySpec, digest


@dataclass(frozen=True)
class StudyStatus:
    """One study of one sweep, trials and evaluation runs together."""

    study: StudySpec
    n_trials: int
    n_seeds: int
    trials: Sequence[TrialRecord]  # the sweep's first n_trials
    trial_runs: Sequence[RunRecord]
    best: TrialRecord | None  # of all that are done so far
    evaluations: Sequence[RunRecord]  # known runs of the frozen best, by seed
    expected_seconds: float | None  # of one run, from runs already known

    @property
    def search_over(self) -> bool:
        """Whether every trial ended, so that the best of them is evaluated."""
        return sum(trial.ended for trial in self.trials) >= self.n_trials

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
        members = self.trials if phase == "search" else self.evaluations
        return sum(member.state == state for member in members)

    @property
    def n_left(self) -> int:
        """Runs that the next `bhnbench sweep` would execute."""
        left = self.n_trials - sum(trial.settled for trial in self.trials)
        if not self.hopeless:
            left += self.n_seeds - sum(run.settled for run in self.evaluations)
        return left

    @property
    def failures(self) -> list[RunRecord]:
        """The failed runs; a run that only another study's retry failed is none of ours."""
        pairs = zip(self.trials, self.trial_runs, strict=True)
        trial_runs = [run for trial, run in pairs if trial.state == "failed"]
        return [run for run in [*trial_runs, *self.evaluations] if run.state == "failed"]

    @property
    def runs(self) -> list[RunRecord]:
        """The runs of its trials and its evaluation, each once, whoever asked for them."""
        return list({run.key: run for run in [*self.trial_runs, *self.evaluations]}.values())

    @property
    def warned(self) -> list[RunRecord]:
        """The runs that carry warnings."""
        return [run for run in self.runs if run.warnings]

    @property
    def seconds(self) -> float:
        """Time spent on the study's runs."""
        return sum(run.cost.seconds for run in self.runs)


def evaluation_specs(
    study: StudySpec, configuration: Mapping[str, Value], n_seeds: int
) -> list[RunSpec]:
    """The evaluation runs of a configuration: seeds 1 ... n, which no search has used."""
    return [study.run(configuration, "evaluate", seed) for seed in range(1, n_seeds + 1)]


def study_statuses(
    ledger: Ledger, studies: Sequence[StudyRecord], n_seeds: int
) -> list[StudyStatus]:
    """Where each study stands."""
    seconds = ledger.mean_seconds()
    return [_status(ledger, study, n_seeds, seconds) for study in studies]


def _status(
    ledger: Ledger,
    record: StudyRecord,
    n_seeds: int,
    seconds: Mapping[tuple[str, str], float],
) -> StudyStatus:
    study = record.spec
    trials = [] if record.id is None else ledger.trials(record.id)
    trials = [trial for trial in trials if trial.number < record.n_trials]
    best = best_trial(trials, study.direction)
    evaluations: Sequence[RunRecord] = []
    over = sum(trial.ended for trial in trials) >= record.n_trials
    if over and (best is not None or record.n_trials == 0):
        specs = evaluation_specs(study, best.configuration if best else {}, n_seeds)
        known = ledger.runs(spec.key for spec in specs)
        evaluations = [known[spec.key] for spec in specs if spec.key in known]
    by_id = ledger.run_ids(trial.run_id for trial in trials)
    return StudyStatus(
        study=study,
        n_trials=record.n_trials,
        n_seeds=n_seeds,
        trials=trials,
        trial_runs=[by_id[trial.run_id] for trial in trials],
        best=best,
        evaluations=evaluations,
        expected_seconds=seconds.get((digest(study.task.identity), study.method.name)),
    )
