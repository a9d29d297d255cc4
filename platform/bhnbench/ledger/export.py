"""A ledger's rows into a file that other homes can merge."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Select, select
from sqlalchemy.exc import DatabaseError

from bhnbench.errors import LedgerError
from bhnbench.ledger.database import open_engine
from bhnbench.ledger.portable import TABLES, Row, columns, table, written
from bhnbench.ledger.records import LEFT_RUNNING
from bhnbench.ledger.references import runs_of, studies_of, where_in

PAGE = 5000  # rows in memory at a time
OWNERS = {
    "sweeps": ("id", "sweeps"),
    "sweep_studies": ("sweep_id", "sweeps"),
    "studies": ("id", "studies"),
    "trials": ("study_id", "studies"),
    "runs": ("id", "runs"),
    "scores": ("run_id", "runs"),
    "points": ("run_id", "runs"),
    "tables": ("run_id", "runs"),
}


def export_rows(address: str, file: Path, sweep_ids: Collection[int] | None) -> dict[str, int]:
    """Write a ledger, or what belongs to some of its sweeps, as it stands now.

    A run that is under way is written as interrupted, which is what it is elsewhere.

    Args:
        address: the ledger's URL.
        file: replaced whole.
        sweep_ids: of the sweeps; None: everything.

    Returns:
        How many rows of each table.

    Raises:
        LedgerError: the ledger cannot be read, or the file not be written.
    """
    engine = open_engine(address, create=False)
    try:
        with _still(engine).begin() as connection, written(file) as out:
            ids = None if sweep_ids is None else _belonging(connection, sweep_ids)
            for name in TABLES:
                out.add(name, _rows(connection, name, ids))
        return out.counts
    except DatabaseError as error:
        reason = str(error.orig).strip().splitlines()[0]
        raise LedgerError(f"the ledger cannot be read: {reason}") from error
    finally:
        engine.dispose()


def _still(engine: Engine) -> Engine:
    """One that sees the ledger as it is now, whatever drivers write meanwhile."""
    if engine.dialect.name == "sqlite":  # sees it so anyway
        return engine
    return engine.execution_options(isolation_level="REPEATABLE READ")


def _belonging(connection: Connection, sweep_ids: Collection[int]) -> dict[str, Collection[int]]:
    studies = studies_of(connection, sweep_ids)
    return {"sweeps": sweep_ids, "studies": studies, "runs": runs_of(connection, studies)}


def _rows(
    connection: Connection, name: str, ids: dict[str, Collection[int]] | None
) -> Iterator[Row]:
    query: Select[*tuple[Any, ...]] = select(*columns(name))
    column, owner = OWNERS[name]
    if ids is None:
        found = iter(connection.execution_options(yield_per=PAGE).execute(query))
    else:
        found = where_in(connection, query, table(name).c[column], sorted(ids[owner]))
    for row in found:
        content = dict(row._mapping)
        if content.get("state") == "running":
            content |= {"state": "failed", "failure": "interrupted"}
            content |= {"message": LEFT_RUNNING} if "message" in content else {}
        yield content
