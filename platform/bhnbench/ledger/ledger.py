"""The verbs of the ledger. The driver alone writes; each verb is one transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import delete, select, update

from bhnbench.ledger import leases
from bhnbench.ledger.database import one_at_a_time, patient
from bhnbench.ledger.leases import Claim
from bhnbench.ledger.models import RunRow, SweepRow, SweepStudyRow, now
from bhnbench.ledger.reading import Reading
from bhnbench.ledger.records import LEFT_RUNNING, SweepRecord, TrialRef
from bhnbench.ledger.rows import ensure_study, put_results, put_trial, sweep_record
from bhnbench.runs import RunResult
from bhnbench.specs import RunSpec, study_to_json

if TYPE_CHECKING:
    from bhnbench.sweep.document import Sweep

MESSAGE_LENGTH = 2000


class Ledger(Reading):
    """The ledger at a database URL."""

    _driver: int | None = None  # who this is, once it has joined

    @patient
    def record_sweep(self, sweep: Sweep) -> SweepRecord:
        """Note that a sweep starts, or goes on."""
        with self._session(writes=True) as session:
            one_at_a_time(session.connection())  # what two insert at once, one cannot
            row = session.scalar(select(SweepRow).filter_by(name=sweep.name, digest=sweep.digest))
            started = now()
            if row is None:
                row = SweepRow(
                    name=sweep.name,
                    digest=sweep.digest,
                    document=dict(sweep.content),
                    n_seeds=sweep.n_seeds,
                    created_at=started,
                )
                session.add(row)
            row.started_at, row.finished_at = started, None
            session.flush()
            session.execute(delete(SweepStudyRow).filter_by(sweep_id=row.id))
            for position, study in enumerate(sweep.studies):
                session.add(
                    SweepStudyRow(
                        sweep_id=row.id,
                        position=position,
                        study_id=ensure_study(session, study.key, study_to_json(study)),
                        task_label=study.labels[0],
                        method_label=study.labels[1],
                        n_trials=sweep.trials_of(study),
                    )
                )
            session.flush()
            return sweep_record(session, row)

    @patient
    def finish_sweep(self, sweep_id: int) -> None:
        """Note that nothing is left to do."""
        with self._session(writes=True) as session:
            session.execute(update(SweepRow).filter_by(id=sweep_id).values(finished_at=now()))

    @patient
    def join(self, *, alone: bool) -> None:
        """Be a driver from now on: what is claimed is this driver's.

        Args:
            alone: no other driver can be alive, so that nobody's lease need end first.

        Raises:
            LedgerError: a driver on another host writes the same SQLite file.
        """
        with self._session(writes=True) as session:
            self._driver = leases.join(session, alone=alone)

    def beat(self) -> None:
        """Say that this driver is alive."""
        if self._driver is not None:
            with self._session(writes=True) as session:
                leases.beat(session, self._driver)

    @patient
    def leave(self) -> None:
        """Give up all that this driver holds; runs under way are interrupted."""
        with self._session(writes=True) as session:
            if self._driver is not None:
                leases.leave(session, self._driver)
            leases.interrupt_left(session)

    @patient
    def release_runs(self) -> int:
        """Mark runs that dead drivers left running as interrupted; returns how many."""
        with self._session(writes=True) as session:
            return leases.interrupt_left(session)

    @patient
    def claim_study(self, study_id: int) -> bool:
        """Take a study's search, unless a live driver has it."""
        with self._session(writes=True) as session:
            return leases.claim_study(session, study_id, self._driver)

    @patient
    def holds_study(self, study_id: int) -> bool:
        """Whether nobody has taken a study's search over."""
        with self._session() as session:
            return leases.holds_study(session, study_id, self._driver)

    @patient
    def release_study(self, study_id: int) -> None:
        """Let others search a study."""
        with self._session(writes=True) as session:
            leases.release_study(session, study_id, self._driver)

    @patient
    def start_run(self, spec: RunSpec, trial: TrialRef | None) -> Claim | None:
        """Take a run, for ``trial`` (study id, number, configuration) or for itself.

        Returns:
            None if it is settled meanwhile, or a live driver has it or the trial's study.
        """
        with self._session(writes=True) as session:
            if trial is not None and not leases.holds_study(session, trial.study_id, self._driver):
                return None
            claim = leases.claim_run(session, spec, self._driver)
            if claim is not None and trial is not None:
                run_id = session.scalars(select(RunRow.id).filter_by(key=spec.key)).one()
                put_trial(session, trial, run_id, RunResult("running"), None)
            return claim

    @patient
    def finish_run(
        self,
        spec: RunSpec,
        result: RunResult,
        trial: TrialRef | None = None,
        value: float | None = None,
        *,
        attempt: int | None = None,
        killed: bool = False,
    ) -> bool:
        """A run ended; scores, points, tables and its trial land in one transaction.

        Args:
            spec: the run.
            result: how it ended.
            trial: the trial that it serves.
            value: the trial's.
            attempt: as claimed; None for the newest.
            killed: its worker died of it.

        Returns:
            False if the result comes too late: somebody else has taken the run over.
        """
        with self._session(writes=True) as session:
            row = session.scalars(select(RunRow).filter_by(key=spec.key).with_for_update()).one()
            if row.driver_id != self._driver or attempt not in (None, row.attempts):
                return False
            left = (row.failure, row.message) == ("interrupted", LEFT_RUNNING)
            if attempt is not None and row.state != "running" and not left:
                return True  # landed before: the server's answer was lost on its way
            row.state, row.failure = result.state, result.failure
            row.message = result.message[:MESSAGE_LENGTH]
            row.warnings = list(result.warnings)
            row.n_killed += killed
            row.finished_at = now()
            row.fit_seconds = result.cost.fit_seconds
            row.score_seconds = result.cost.score_seconds
            row.peak_memory_mb = result.cost.peak_memory_mb
            row.provenance = dict(result.provenance)
            put_results(session, row.id, result)
            if trial is not None and leases.holds_study(session, trial.study_id, self._driver):
                put_trial(session, trial, row.id, result, value)
            return True

    @patient
    def use_run(
        self, run_id: int, result: RunResult, trial: TrialRef, value: float | None
    ) -> None:
        """A trial takes over how a run ended that it did not ask for itself."""
        with self._session(writes=True) as session:
            put_trial(session, trial, run_id, result, value)
