"""What is left to do of a sweep, without changing anything."""

from __future__ import annotations

from dataclasses import replace

from bhnbench.ledger.ledger import Ledger
from bhnbench.ledger.records import StudyRecord
from bhnbench.specs import digest
from bhnbench.status import NO_TRIALS, StudyStatus, study_statuses
from bhnbench.sweep.document import Sweep


def plan_sweep(sweep: Sweep, ledger: Ledger | None) -> list[StudyStatus]:
    """Where each study of a sweep stands; without a ledger all is left to do."""
    if ledger is None:
        return [
            StudyStatus(study, sweep.trials_of(study), sweep.n_seeds, NO_TRIALS, ())
            for study in sweep.studies
        ]
    keys = [study.key for study in sweep.studies]
    ids = ledger.study_ids(keys)
    studies = [
        StudyRecord(ids.get(key), study, sweep.trials_of(study))
        for key, study in zip(keys, sweep.studies, strict=True)
    ]
    statuses = study_statuses(ledger, studies, sweep.n_seeds)
    names = [(digest(study.task.identity), study.method.name) for study in sweep.studies]
    seconds = ledger.mean_seconds(task for task, _ in names)
    return [
        replace(status, expected_seconds=seconds.get(name))
        for status, name in zip(statuses, names, strict=True)
    ]
