"""Who holds what: a driver has its runs and studies for as long as it is seen.

A driver that is not seen for ``LEASE_SECONDS`` is taken for dead, and others may take over. Should
it only have slept, its results are refused: each attempt at a run has a number, and the ledger
takes the result of the newest attempt alone. Times are those of the database server, so that the
clocks of hosts need not agree.
"""

from __future__ import annotations

import os
import socket
from datetime import datetime, timedelta
from typing import Any, NamedTuple, cast

from sqlalchemy import CursorResult, Select, Update, func, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from bhnbench.errors import LedgerError
from bhnbench.ledger.models import DriverRow, RunRow, StudyRow, TrialRow, now
from bhnbench.ledger.records import LEFT_RUNNING
from bhnbench.runs import FINAL_FAILURES
from bhnbench.specs import RunSpec, digest, run_to_json

LEASE_SECONDS = 30.0
BEAT_SECONDS = 5.0  # several may be lost before a lease ends


class Claim(NamedTuple):
    """A run that a driver was given."""

    attempt: int
    n_killed: int  # how often its worker died of it so far


UNCLAIMED = Claim(attempt=0, n_killed=0)


def clock(session: Session) -> datetime:
    """The time by the one clock that all drivers of a ledger share."""
    if session.get_bind().dialect.name == "sqlite":
        return now()  # a file: its drivers are on one host
    return session.scalars(select(func.now())).one()


def alive(session: Session) -> Select[Any]:
    """The ids of the drivers that were seen lately."""
    limit = clock(session) - timedelta(seconds=LEASE_SECONDS)
    return select(DriverRow.id).where(DriverRow.seen_at >= limit)


def join(session: Session, *, alone: bool) -> int:
    """A new driver's id.

    Args:
        session: a transaction.
        alone: no other driver can be alive.

    Raises:
        LedgerError: a driver on another host writes the same SQLite file.
    """
    if alone:
        session.execute(update(DriverRow).values(seen_at=None))
    host = socket.gethostname()
    if session.get_bind().dialect.name == "sqlite":
        _refuse_other_hosts(session, host)
    row = DriverRow(host=host, pid=os.getpid(), seen_at=clock(session))
    session.add(row)
    session.flush()
    return row.id


def _refuse_other_hosts(session: Session, host: str) -> None:
    query = select(DriverRow.host).where(DriverRow.id.in_(alive(session)), DriverRow.host != host)
    other = session.scalars(query).first()
    if other is not None:
        raise LedgerError(
            f"an SQLite ledger must be written from one host, but a driver on {other} is at work "
            "on this one; set BHNBENCH_LEDGER to a PostgreSQL database for several hosts"
        )


def beat(session: Session, driver: int) -> None:
    """The driver is alive."""
    session.execute(update(DriverRow).filter_by(id=driver).values(seen_at=clock(session)))


def leave(session: Session, driver: int) -> None:
    """The driver ends."""
    session.execute(update(DriverRow).filter_by(id=driver).values(seen_at=None))
    session.execute(update(StudyRow).filter_by(driver_id=driver).values(driver_id=None))


def claim_study(session: Session, study_id: int, driver: int | None) -> bool:
    """Take a study's search for a driver, unless a live one has it."""
    free = or_(
        StudyRow.driver_id.is_(None),
        StudyRow.driver_id == driver,
        StudyRow.driver_id.not_in(alive(session)),
    )
    change = update(StudyRow).where(StudyRow.id == study_id, free).values(driver_id=driver)
    return _n_changed(session, change) == 1


def release_study(session: Session, study_id: int, driver: int | None) -> None:
    """Let others search a study."""
    change = update(StudyRow).filter_by(id=study_id, driver_id=driver).values(driver_id=None)
    session.execute(change)


def claim_run(session: Session, spec: RunSpec, driver: int | None) -> Claim | None:
    """Take a run for a driver, unless it is settled or a live driver has it."""
    free = or_(
        RunRow.state != "running",
        RunRow.driver_id.is_(None),
        RunRow.driver_id == driver,
        RunRow.driver_id.not_in(alive(session)),
    )
    unsettled = or_(RunRow.failure.is_(None), RunRow.failure.not_in(FINAL_FAILURES))
    change = (
        update(RunRow)
        .where(RunRow.key == spec.key, RunRow.state != "done", unsettled, free)
        .values(
            state="running",
            failure=None,
            message="",
            warnings=[],
            attempts=RunRow.attempts + 1,
            driver_id=driver,
            started_at=now(),
            finished_at=None,
        )
    )
    if _n_changed(session, change) == 0 and not _insert_run(session, spec, driver):
        return None
    query = select(RunRow.attempts, RunRow.n_killed).filter_by(key=spec.key)
    return Claim(*session.execute(query).one())


def _insert_run(session: Session, spec: RunSpec, driver: int | None) -> bool:
    """Whether the run was not known; another driver may be inserting it as well."""
    try:
        with session.begin_nested():
            session.add(
                RunRow(
                    key=spec.key,
                    task_name=spec.task.name,
                    task_key=digest(spec.task.identity),
                    method_name=spec.method.name,
                    spec=run_to_json(spec),
                    state="running",
                    attempts=1,
                    driver_id=driver,
                    started_at=now(),
                )
            )
    except IntegrityError:
        return False
    return True


def _n_changed(session: Session, change: Update) -> int:
    return int(cast("CursorResult[Any]", session.execute(change)).rowcount)


def holds_study(session: Session, study_id: int, driver: int | None) -> bool:
    """Whether the driver has a study's search, and keeps it until the transaction ends."""
    query = select(StudyRow.driver_id).filter_by(id=study_id).with_for_update(read=True)
    return session.scalars(query).one() == driver


def interrupt_left(session: Session) -> int:
    """Mark what dead drivers left running; returns how many runs."""
    lost = or_(RunRow.driver_id.is_(None), RunRow.driver_id.not_in(alive(session)))
    change = (
        update(RunRow)
        .where(RunRow.state == "running", lost)
        .values(state="failed", failure="interrupted", message=LEFT_RUNNING, finished_at=now())
    )
    n_runs = _n_changed(session, change)
    under_way = select(RunRow.id).where(RunRow.state == "running")
    trials = update(TrialRow).where(TrialRow.state == "running", TrialRow.run_id.not_in(under_way))
    session.execute(trials.values(state="failed", failure="interrupted"))
    return n_runs
