"""What is left to do of a sweep, without changing anything."""

from __future__ import annotations

from bhnbench.ledger.ledger import Ledger
from bhnbench.ledger.records import StudyRecord
from bhnbench.status import StudyStatus, study_statuses
from bhnbench.sweep.document import Sweep


def plan_sweep(sweep: Sweep, ledger: Ledger | None) -> list[StudyStatus]:
    """Where each study of a sweep stands; without a ledger all is left to do."""
    if ledger is None:
        return [
            StudyStatus(study, sweep.trials_of(study), sweep.n_seeds, (), (), None, (), None)
            for study in sweep.studies
        ]
    ids = ledger.study_ids(study.key for study in sweep.studies)
    studies = [
        StudyRecord(ids.get(study.key), study, sweep.trials_of(study)) for study in sweep.studies
    ]
    return study_statuses(ledger, studies, sweep.n_seeds)
