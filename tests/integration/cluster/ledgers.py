"""All that a ledger has of its only sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bhnbench.ledger.ledger import Ledger
from bhnbench.ledger.records import RunRecord, TrialRecord
from bhnbench.status import StudyStatus, study_statuses


@dataclass(frozen=True)
class SweptStudy:
    """A study with its trials and runs."""

    status: StudyStatus
    trials: Sequence[TrialRecord]
    trial_runs: Sequence[RunRecord]  # one for each trial

    @property
    def labels(self) -> tuple[str, str]:
        """Of task and method."""
        return self.status.study.labels

    @property
    def evaluations(self) -> Sequence[RunRecord]:
        """By seed."""
        return self.status.evaluations

    @property
    def runs(self) -> list[RunRecord]:
        """All, each once."""
        return list({run.key: run for run in [*self.trial_runs, *self.evaluations]}.values())


def swept_studies(address: str) -> list[SweptStudy]:
    """The studies of the sweep in a ledger."""
    with Ledger(address) as ledger:
        (sweep,) = ledger.sweeps()
        statuses = study_statuses(ledger, sweep.studies, sweep.n_seeds)
        found = []
        for record, status in zip(sweep.studies, statuses, strict=True):
            trials = ledger.trials(record.id)
            runs = ledger.run_ids(trial.run_id for trial in trials)
            found.append(SweptStudy(status, trials, [runs[trial.run_id] for trial in trials]))
    return found
