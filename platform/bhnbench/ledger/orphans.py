"""Studies, trials and runs that no sweep refers to any more: a cache that may be given up."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, delete, func, select, text
from sqlalchemy.exc import DatabaseError
from sqlalchemy.orm import Session

from bhnbench.errors import LedgerError
from bhnbench.ledger.database import WRITES, open_engine
from bhnbench.ledger.leases import alive
from bhnbench.ledger.models import (
    PointRow,
    RunRow,
    ScoreRow,
    StudyRow,
    SweepStudyRow,
    TableRow,
    TrialRow,
)  # fmt: skip
from bhnbench.ledger.references import chunks, runs_of

RESULTS = (ScoreRow, PointRow, TableRow)


def count_orphan_studies(address: str) -> int:
    """How many studies no sweep refers to; that is quickly counted."""
    engine = open_engine(address, create=False)
    try:
        with engine.connect() as connection:
            used = select(SweepStudyRow.study_id)
            query = select(func.count()).select_from(StudyRow).where(StudyRow.id.not_in(used))
            return connection.execute(query).scalar_one()
    finally:
        engine.dispose()


def remove_orphans(address: str, *, alone: bool, dry_run: bool = False) -> dict[str, int]:
    """Remove the studies that no sweep refers to, with their trials, and the runs of none.

    Args:
        address: the ledger's URL.
        alone: no driver can be at work on it.
        dry_run: count alone.

    Returns:
        How many studies, trials and runs; and ``bytes``, by which an SQLite file became smaller.

    Raises:
        LedgerError: the ledger cannot be written, or a driver is at work on it.
    """
    engine = open_engine(address, create=False)
    try:
        with engine.execution_options(**{WRITES: True}).connect() as connection:
            if not alone:
                _refuse_drivers(connection)
            counts = _remove(connection)
            if not dry_run:
                connection.commit()
        return counts | {"bytes": 0 if dry_run or not any(counts.values()) else _shrink(engine)}
    except DatabaseError as error:
        reason = str(error.orig).strip().splitlines()[0]
        raise LedgerError(f"the ledger cannot be read or written: {reason}") from error
    finally:
        engine.dispose()


def _refuse_drivers(connection: Connection) -> None:
    """No driver is at work, and none begins before this transaction ends."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("LOCK TABLE drivers IN SHARE MODE"))
    with Session(connection) as session:
        working = len(session.scalars(alive(session)).all())
    if working:
        raise LedgerError(
            f"no driver may be at work on the ledger while runs are removed, but {working} of "
            "them are; try again when their sweeps have ended"
        )


def _remove(connection: Connection) -> dict[str, int]:
    used = set(connection.scalars(select(SweepStudyRow.study_id)))
    studies = set(connection.scalars(select(StudyRow.id))) - used
    runs = set(connection.scalars(select(RunRow.id))) - runs_of(connection, used)
    counts = {"studies": len(studies), "runs": len(runs)}
    counts["trials"] = _delete(connection, TrialRow, TrialRow.study_id, studies)
    for model in RESULTS:
        _delete(connection, model, model.run_id, runs)
    _delete(connection, RunRow, RunRow.id, runs)
    _delete(connection, StudyRow, StudyRow.id, studies)
    return counts


def _delete(connection: Connection, model: Any, column: Any, ids: Iterable[int]) -> int:  # noqa: ANN401 - a model
    """Returns how many rows."""
    statements = (delete(model).where(column.in_(chunk)) for chunk in chunks(sorted(ids)))
    return sum(connection.execute(statement).rowcount for statement in statements)


def _shrink(engine: Engine) -> int:
    """Give an SQLite file's free space back; returns how much that is."""
    if engine.dialect.name != "sqlite" or not engine.url.database:
        return 0
    file = Path(engine.url.database)
    before = file.stat().st_size
    connection = engine.raw_connection()
    try:
        for statement in ("VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"):
            connection.cursor().execute(statement).close()
    finally:
        connection.close()
    return max(0, before - file.stat().st_size)
