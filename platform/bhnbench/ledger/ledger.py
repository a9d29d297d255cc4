"""The verbs of the ledger. The driver alone writes; each verb is one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import DatabaseError
from sqlalchemy.orm import Session

from bhnbench.errors import LedgerError
from bhnbench.ledger.database import open_engine
from bhnbench.ledger.models import (
    PointRow,
    RunRow,
    StudyRow,
    SweepRow,
    SweepStudyRow,
    TableRow,
    TrialRow,
    now,
)  # fmt: skip
from bhnbench.ledger.records import (
    LEFT_RUNNING,
    RunRecord,
    SweepRecord,
    TrialRecord,
    TrialRef,
)  # fmt: skip
from bhnbench.ledger.rows import (
    ensure_study,
    put_results,
    put_trial,
    run_records,
    sweep_record,
    trial_record,
)  # fmt: skip
from bhnbench.runs import Point, RunResult
from bhnbench.specs import RunSpec, digest, run_to_json, study_to_json

if TYPE_CHECKING:
    from bhnbench.sweep.document import Sweep

MESSAGE_LENGTH = 2000
CHUNK = 500  # keys a query; SQLite admits a limited number of parameters


class Ledger:
    """The ledger at a database URL."""

    def __init__(self, address: str, *, create: bool = False, driven: bool = True) -> None:
        """Open it.

        Args:
            address: a SQLAlchemy URL.
            create: make it or bring it up to date first.
            driven: whether a driver may be at work on it. Where none is, what the last one
                left running is read as interrupted, which the next one will write.

        Raises:
            LedgerError: it cannot be opened.
        """
        self._engine = open_engine(address, create=create)
        self._driven = driven

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def _session(self) -> Iterator[Session]:
        try:
            with Session(self._engine) as session, session.begin():
                yield session
        except DatabaseError as error:
            reason = str(error.orig).strip().splitlines()[0]
            raise LedgerError(f"the ledger cannot be read or written: {reason}") from error

    # --- sweeps and studies ---------------------------------------------------------------

    def record_sweep(self, sweep: Sweep) -> SweepRecord:
        """Note that a sweep starts, or goes on."""
        with self._session() as session:
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

    def finish_sweep(self, sweep_id: int) -> None:
        """Note that nothing is left to do."""
        with self._session() as session:
            session.execute(update(SweepRow).filter_by(id=sweep_id).values(finished_at=now()))

    def study_ids(self, keys: Iterable[str]) -> dict[str, int]:
        """The ids of the known studies among ``keys``."""
        with self._session() as session:
            query = select(StudyRow.key, StudyRow.id).where(StudyRow.key.in_(list(keys)))
            return dict(session.execute(query).all())

    def sweeps(self) -> list[SweepRecord]:
        """All sweeps, the one started last first."""
        with self._session() as session:
            rows = session.scalars(select(SweepRow).order_by(SweepRow.started_at.desc()))
            return [sweep_record(session, row) for row in rows]

    # --- runs -----------------------------------------------------------------------------

    def start_run(self, spec: RunSpec, trial: TrialRef | None) -> None:
        """A run is handed out, for ``trial`` (study id, number, configuration) or for itself."""
        with self._session() as session:
            row = session.scalar(select(RunRow).filter_by(key=spec.key))
            if row is None:
                row = RunRow(
                    key=spec.key,
                    task_name=spec.task.name,
                    task_key=digest(spec.task.identity),
                    method_name=spec.method.name,
                    spec=run_to_json(spec),
                    attempts=0,
                )
                session.add(row)
            row.state, row.failure, row.message = "running", None, ""
            row.warnings = []
            row.attempts += 1
            row.started_at, row.finished_at = now(), None
            session.flush()
            if trial is not None:
                put_trial(session, trial, row.id, RunResult("running"), None)

    def finish_run(
        self,
        spec: RunSpec,
        result: RunResult,
        trial: TrialRef | None = None,
        value: float | None = None,
    ) -> None:
        """A run ended; scores, points, tables and its trial land in one transaction."""
        with self._session() as session:
            row = session.scalars(select(RunRow).filter_by(key=spec.key)).one()
            row.state, row.failure = result.state, result.failure
            row.message = result.message[:MESSAGE_LENGTH]
            row.warnings = list(result.warnings)
            row.finished_at = now()
            row.fit_seconds = result.cost.fit_seconds
            row.score_seconds = result.cost.score_seconds
            row.peak_memory_mb = result.cost.peak_memory_mb
            row.provenance = dict(result.provenance)
            put_results(session, row.id, result)
            if trial is not None:
                put_trial(session, trial, row.id, result, value)

    def use_run(
        self, run_id: int, result: RunResult, trial: TrialRef, value: float | None
    ) -> None:
        """A trial takes over how a run ended that it did not ask for itself."""
        with self._session() as session:
            put_trial(session, trial, run_id, result, value)

    def release_runs(self) -> int:
        """Mark runs that a driver left running as interrupted; returns how many."""
        with self._session() as session:
            running = session.scalars(select(RunRow).filter_by(state="running")).all()
            for row in running:
                row.state, row.failure = "failed", "interrupted"
                row.message, row.finished_at = LEFT_RUNNING, now()
            ended = update(TrialRow).filter_by(state="running")
            session.execute(ended.values(state="failed", failure="interrupted"))
            return len(running)

    def runs(self, keys: Iterable[str]) -> dict[str, RunRecord]:
        """The known runs among ``keys``."""
        wanted = list(dict.fromkeys(keys))
        found: dict[str, RunRecord] = {}
        with self._session() as session:
            for start in range(0, len(wanted), CHUNK):
                chunk = wanted[start : start + CHUNK]
                rows = session.scalars(select(RunRow).where(RunRow.key.in_(chunk))).all()
                found |= {record.key: record for record in self._records(session, rows)}
        return found

    def find_runs(self, reference: str) -> list[RunRecord]:
        """The runs of that id, or whose key begins so."""
        with self._session() as session:
            rows: Sequence[RunRow] = []
            if reference.isdecimal() and len(reference) < 10:
                rows = session.scalars(select(RunRow).filter_by(id=int(reference))).all()
            if not rows and len(reference) >= 4:
                matches = RunRow.key.startswith(reference.lower(), autoescape=True)
                rows = session.scalars(select(RunRow).where(matches)).all()
            return self._records(session, rows)

    def points(self, run_id: int) -> list[Point]:
        """What a run reported, step by step."""
        with self._session() as session:
            rows = session.scalars(select(PointRow).filter_by(run_id=run_id))
            steps: dict[int, dict[str, float]] = {}
            for row in rows:
                steps.setdefault(row.step, {})[row.metric] = row.value
        return sorted(steps.items())

    def tables(self, run_id: int) -> dict[str, dict[str, list[Any]]]:
        """The tables that a run returned."""
        with self._session() as session:
            rows = session.scalars(select(TableRow).filter_by(run_id=run_id))
            return {row.name: row.columns for row in rows}

    def mean_seconds(self) -> dict[tuple[str, str], float]:
        """Mean duration of the done runs of each (task's digest, method's name)."""
        with self._session() as session:
            seconds = func.avg(RunRow.fit_seconds + RunRow.score_seconds)
            names = RunRow.task_key, RunRow.method_name
            query = select(*names, seconds).where(RunRow.state == "done").group_by(*names)
            rows = session.execute(query)
            return {(task, method): mean for task, method, mean in rows}

    # --- trials ---------------------------------------------------------------------------

    def trials(self, study_id: int, run_id: int | None = None) -> list[TrialRecord]:
        """A study's trials by number; with ``run_id`` only those that this run serves."""
        with self._session() as session:
            query = select(TrialRow).filter_by(study_id=study_id).order_by(TrialRow.number)
            if run_id is not None:
                query = query.filter_by(run_id=run_id)
            trials = [trial_record(row) for row in session.scalars(query)]
        return trials if self._driven else [trial.as_left() for trial in trials]

    def run_ids(self, ids: Iterable[int]) -> dict[int, RunRecord]:
        """The runs of these ids."""
        wanted = list(ids)
        found: dict[int, RunRecord] = {}
        with self._session() as session:
            for start in range(0, len(wanted), CHUNK):
                chunk = wanted[start : start + CHUNK]
                rows = session.scalars(select(RunRow).where(RunRow.id.in_(chunk))).all()
                found |= {record.id: record for record in self._records(session, rows)}
        return found

    def _records(self, session: Session, rows: Sequence[RunRow]) -> list[RunRecord]:
        records = run_records(session, rows)
        return records if self._driven else [record.as_left() for record in records]
