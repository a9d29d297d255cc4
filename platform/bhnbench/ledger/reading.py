"""What can be read in a ledger."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

from sqlalchemy import ColumnElement, func, select
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
    SweepStudyRow,
    TableRow,
    TrialRow,
)  # fmt: skip
from bhnbench.ledger.records import (
    RunRecord,
    StudyRecord,
    SweepRecord,
    SweepTitle,
    Tally,
    TrialRecord,
    WarnedRun,
)  # fmt: skip
from bhnbench.ledger.rows import run_records, sweep_record, trial_record
from bhnbench.ledger.tallies import tallies, warned_trial_runs
from bhnbench.runs import Point

CHUNK = 500  # keys a query; SQLite admits a limited number of parameters
T = TypeVar("T")


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
            reason = (str(error.orig).strip() or type(error).__name__).splitlines()[0]
            text = f"the ledger cannot be read or written: {reason}"
            away = isinstance(error, OperationalError) and self._engine.dialect.name != "sqlite"
            raise (LedgerAwayError if away else LedgerError)(text) from error

    @patient
    def study_ids(self, keys: Iterable[str]) -> dict[str, int]:
        """The ids of the known studies among ``keys``."""
        wanted = list(keys)
        found: dict[str, int] = {}
        with self._session() as session:
            for chunk in _chunks(wanted):
                query = select(StudyRow.key, StudyRow.id).where(StudyRow.key.in_(chunk))
                found |= dict(session.execute(query).all())
        return found

    @patient
    def sweeps(self) -> list[SweepRecord]:
        """All sweeps, the one started last first."""
        with self._session() as session:
            rows = session.scalars(select(SweepRow).order_by(SweepRow.started_at.desc()))
            return [sweep_record(session, row) for row in rows]

    @patient
    def find_sweep(self, reference: str | None = None) -> SweepRecord | None:
        """The sweep of that name or number that was started last; None where there is none."""
        query = select(SweepRow).order_by(SweepRow.started_at.desc()).limit(1)
        if reference is not None:
            number = int(reference) if reference.isdecimal() and len(reference) < 10 else None
            exact = number if str(number) == reference else None
            query = query.where((SweepRow.name == reference) | (SweepRow.id == exact))
        with self._session() as session:
            row = session.scalar(query)
            return None if row is None else sweep_record(session, row)

    @patient
    def sweep_titles(self) -> list[SweepTitle]:
        """All sweeps in a few words, the one started last first."""
        columns = SweepRow.id, SweepRow.name, SweepStudyRow.task_label
        query = (
            select(*columns)
            .outerjoin(SweepStudyRow, SweepStudyRow.sweep_id == SweepRow.id)
            .order_by(SweepRow.started_at.desc(), SweepRow.id, SweepStudyRow.position)
        )
        with self._session() as session:
            labels: dict[tuple[int, str], dict[str, None]] = {}
            for sweep_id, name, label in session.execute(query):
                labels.setdefault((sweep_id, name), {})[label] = None
        return [SweepTitle(*sweep, list(tasks)) for sweep, tasks in labels.items()]

    @patient
    def runs(self, keys: Iterable[str]) -> dict[str, RunRecord]:
        """The known runs among ``keys``."""
        wanted = list(dict.fromkeys(keys))
        found: dict[str, RunRecord] = {}
        with self._session() as session:
            for chunk in _chunks(wanted):
                records = self._records(session, RunRow.key.in_(chunk))
                found |= {record.key: record for record in records}
        return found

    @patient
    def run_ids(self, ids: Iterable[int]) -> dict[int, RunRecord]:
        """The runs of these ids."""
        wanted = list(ids)
        found: dict[int, RunRecord] = {}
        with self._session() as session:
            for chunk in _chunks(wanted):
                records = self._records(session, RunRow.id.in_(chunk))
                found |= {record.id: record for record in records}
        return found

    @patient
    def find_runs(self, reference: str) -> list[RunRecord]:
        """The runs of that id, or whose key begins so."""
        with self._session() as session:
            found: list[RunRecord] = []
            if reference.isdecimal() and len(reference) < 10:
                found = self._records(session, RunRow.id == int(reference))
            if not found and len(reference) >= 4:
                matches = RunRow.key.startswith(reference.lower(), autoescape=True)
                found = self._records(session, matches)
            return found

    @patient
    def points(self, run_id: int) -> list[Point]:
        """What a run reported, step by step."""
        with self._session() as session:
            columns = PointRow.step, PointRow.metric, PointRow.value
            steps: dict[int, dict[str, float]] = {}
            for step, metric, value in session.execute(select(*columns).filter_by(run_id=run_id)):
                steps.setdefault(step, {})[metric] = value
        return sorted(steps.items())

    @patient
    def points_of(self, run_ids: Iterable[int], metric: str) -> dict[int, list[tuple[int, float]]]:
        """The (step, value) reports of one metric; by run's id, those without any left out."""
        wanted = list(dict.fromkeys(run_ids))
        columns = PointRow.run_id, PointRow.step, PointRow.value
        query = select(*columns).where(PointRow.metric == metric).order_by(PointRow.step)
        found: dict[int, list[tuple[int, float]]] = {}
        with self._session() as session:
            for chunk in _chunks(wanted):
                of_chunk = query.where(PointRow.run_id.in_(chunk))
                for run_id, step, value in session.execute(of_chunk):
                    found.setdefault(run_id, []).append((step, value))
        return found

    @patient
    def tables(self, run_id: int) -> dict[str, dict[str, list[Any]]]:
        """The tables that a run returned."""
        with self._session() as session:
            rows = session.scalars(select(TableRow).filter_by(run_id=run_id))
            return {row.name: row.columns for row in rows}

    @patient
    def mean_seconds(self, task_keys: Iterable[str]) -> dict[tuple[str, str], float]:
        """Mean duration of the done runs of each (task's digest, method's name) of these tasks."""
        wanted = list(dict.fromkeys(task_keys))
        names = RunRow.task_key, RunRow.method_name
        seconds = func.avg(RunRow.fit_seconds + RunRow.score_seconds)
        done = select(*names, seconds).where(RunRow.state == "done").group_by(*names)
        found: dict[tuple[str, str], float] = {}
        with self._session() as session:
            for chunk in _chunks(wanted):
                for task, method, mean in session.execute(done.where(RunRow.task_key.in_(chunk))):
                    found[task, method] = mean
        return found

    @patient
    def trials(self, study_id: int, run_id: int | None = None) -> list[TrialRecord]:
        """A study's trials by number; with ``run_id`` only those that this run serves."""
        with self._session() as session:
            # Not by both: SQLite would go through all trials of the study.
            known = TrialRow.study_id == study_id if run_id is None else TrialRow.run_id == run_id
            rows = session.execute(
                select(TrialRow.__table__).where(known).order_by(TrialRow.number)
            )
            trials = [trial_record(row) for row in rows if row.study_id == study_id]
            searcher = session.scalar(select(StudyRow.driver_id).filter_by(id=study_id))
            under_way = [searcher for trial in trials if trial.state == "running"]
            left = searcher not in self._live(session, under_way)
        return [trial.as_left() for trial in trials] if left else trials

    @patient
    def tallies(self, studies: Sequence[StudyRecord]) -> dict[int, Tally]:
        """The first trials of each study, as many as its sweep has, counted; by study's id."""
        with self._session() as session:
            return tallies(session, studies, self._live(session, [None]))

    @patient
    def warned_trial_runs(self, studies: Sequence[StudyRecord]) -> dict[int, list[WarnedRun]]:
        """The runs of these trials that carry warnings; by study's id."""
        with self._session() as session:
            return warned_trial_runs(session, studies)

    def _records(self, session: Session, criterion: ColumnElement[bool]) -> list[RunRecord]:
        rows = session.execute(select(RunRow.__table__).where(criterion)).all()
        live = self._live(session, [row.driver_id for row in rows if row.state == "running"])
        records = zip(run_records(session, rows), rows, strict=True)
        return [r if row.driver_id in live else r.as_left() for r, row in records]

    def _live(self, session: Session, drivers: Sequence[int | None]) -> set[int | None]:
        """Those of the drivers that may be at work; None is whoever has no lease."""
        if not self._driven or not drivers:
            return set()
        return {None, *session.scalars(leases.alive(session))}


def _chunks(wanted: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(wanted), CHUNK):
        yield wanted[start : start + CHUNK]
