"""What can be read in a ledger."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from sqlalchemy import func, select
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.orm import Session

from bhnbench.errors import LedgerAwayError, LedgerError
from bhnbench.interrupts import interrupts_deferred
from bhnbench.ledger import leases
from bhnbench.ledger.database import WRITES, open_engine, patient
from bhnbench.ledger.models import (
    PointRow,
    RunRow,
    StudyRow,
    SweepRow,
    TableRow,
    TrialRow,
)  # fmt: skip
from bhnbench.ledger.records import RunRecord, SweepRecord, TrialRecord
from bhnbench.ledger.rows import run_records, sweep_record, trial_record
from bhnbench.runs import Point

CHUNK = 500  # keys a query; SQLite admits a limited number of parameters


class Reading:
    """The ledger at a database URL, to read in; each verb is one transaction."""

    def __init__(
        self,
        address: str,
        *,
        create: bool = False,
        driven: bool = True,
        patience_seconds: float = 0.0,
    ) -> None:
        """Open it.

        Args:
            address: a SQLAlchemy URL.
            create: make it or bring it up to date first.
            driven: whether a driver may be at work on it. Where none is, what the last one
                left running is read as interrupted, which the next one will write.
            patience_seconds: how long to wait for a server that went away meanwhile.

        Raises:
            LedgerError: it cannot be opened.
        """
        self._engine = open_engine(address, create=create)
        self._driven = driven
        self.patience_seconds = patience_seconds

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
    def _session(self, *, writes: bool = False) -> Iterator[Session]:
        """One transaction; a Ctrl-C that broke it off could leave the database locked."""
        engine = self._engine.execution_options(**{WRITES: writes})
        try:
            with interrupts_deferred(), Session(engine) as session, session.begin():
                yield session
        except DatabaseError as error:
            reason = str(error.orig).strip().splitlines()[0]
            text = f"the ledger cannot be read or written: {reason}"
            away = isinstance(error, OperationalError) and self._engine.dialect.name != "sqlite"
            raise (LedgerAwayError if away else LedgerError)(text) from error

    @patient
    def study_ids(self, keys: Iterable[str]) -> dict[str, int]:
        """The ids of the known studies among ``keys``."""
        with self._session() as session:
            query = select(StudyRow.key, StudyRow.id).where(StudyRow.key.in_(list(keys)))
            return dict(session.execute(query).all())

    @patient
    def sweeps(self) -> list[SweepRecord]:
        """All sweeps, the one started last first."""
        with self._session() as session:
            rows = session.scalars(select(SweepRow).order_by(SweepRow.started_at.desc()))
            return [sweep_record(session, row) for row in rows]

    @patient
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

    @patient
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

    @patient
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

    @patient
    def points(self, run_id: int) -> list[Point]:
        """What a run reported, step by step."""
        with self._session() as session:
            rows = session.scalars(select(PointRow).filter_by(run_id=run_id))
            steps: dict[int, dict[str, float]] = {}
            for row in rows:
                steps.setdefault(row.step, {})[row.metric] = row.value
        return sorted(steps.items())

    @patient
    def tables(self, run_id: int) -> dict[str, dict[str, list[Any]]]:
        """The tables that a run returned."""
        with self._session() as session:
            rows = session.scalars(select(TableRow).filter_by(run_id=run_id))
            return {row.name: row.columns for row in rows}

    @patient
    def mean_seconds(self) -> dict[tuple[str, str], float]:
        """Mean duration of the done runs of each (task's digest, method's name)."""
        with self._session() as session:
            seconds = func.avg(RunRow.fit_seconds + RunRow.score_seconds)
            names = RunRow.task_key, RunRow.method_name
            query = select(*names, seconds).where(RunRow.state == "done").group_by(*names)
            rows = session.execute(query)
            return {(task, method): mean for task, method, mean in rows}

    @patient
    def trials(self, study_id: int, run_id: int | None = None) -> list[TrialRecord]:
        """A study's trials by number; with ``run_id`` only those that this run serves."""
        with self._session() as session:
            query = select(TrialRow).filter_by(study_id=study_id).order_by(TrialRow.number)
            if run_id is not None:
                query = query.filter_by(run_id=run_id)
            trials = [trial_record(row) for row in session.scalars(query)]
            searcher = session.scalar(select(StudyRow.driver_id).filter_by(id=study_id))
            under_way = [searcher for trial in trials if trial.state == "running"]
            left = searcher not in self._live(session, under_way)
        return [trial.as_left() for trial in trials] if left else trials

    def _records(self, session: Session, rows: Sequence[RunRow]) -> list[RunRecord]:
        live = self._live(session, [row.driver_id for row in rows if row.state == "running"])
        records = zip(run_records(session, rows), rows, strict=True)
        return [r if row.driver_id in live else r.as_left() for r, row in records]

    def _live(self, session: Session, drivers: Sequence[int | None]) -> set[int | None]:
        """Those of the drivers that may be at work; None is whoever has no lease."""
        if not self._driven or not drivers:
            return set()
        return {None, *session.scalars(leases.alive(session))}
