"""The ledger: an address, a database that answers in seconds, tables of this version, writable."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bhnbench.findings import Check, InTurn, Verdict, failed, ok, skipped
from bhnbench.home import Home
from bhnbench.tracking.addresses import parse, reason, shown

if TYPE_CHECKING:
    from sqlalchemy import Connection

GROUP = "Ledger"
ANSWER_SECONDS = 5  # to connect
BACKENDS = ("sqlite", "postgresql")
EXAMPLE = "postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"
FIXES = {  # what a server's message says -> what to do
    "password": "set the right password in $BHNBENCH_LEDGER or ~/.pgpass",
    "role ": "make that user (createuser), or name another in $BHNBENCH_LEDGER",
    "does not exist": "make it (createdb), or name another in $BHNBENCH_LEDGER",
    "pg_hba": "allow this host in the server's pg_hba.conf",
    "not a database": "it is no ledger: name another home with --home, or restore the file",
    "": "start the server, or correct host and port in $BHNBENCH_LEDGER",
}


def checks(home: Home) -> Iterator[Check]:
    """Each says what it needs of the one before it."""
    looks = {"address": address, "connection": connection, "tables": tables, "writing": writing}
    turn = InTurn()
    for name, look in looks.items():
        told = partial(turn.look, name, partial(_told, look, home))
        yield Check(GROUP, name, told, seconds=6 * ANSWER_SECONDS)


def address(home: Home) -> Verdict:
    """A database URL whose driver is installed."""
    url = parse(home.ledger)
    if url is None:
        return failed("$BHNBENCH_LEDGER is no database URL", f"write it as {EXAMPLE}")
    if url.get_backend_name() not in BACKENDS:
        known = " and ".join(BACKENDS)
        return failed(f"{shown(home.ledger)}: must be of {known}", f"write it as {EXAMPLE}")
    try:
        url.get_dialect().import_dbapi()
    except ModuleNotFoundError as error:
        found = f"{shown(home.ledger)}: needs the Python package {error.name}"
        fix = f"pip install 'bhnbench[postgres]', and write it as {EXAMPLE}"
        return failed(found, fix)
    return ok(shown(home.ledger))


def connection(home: Home) -> Verdict:
    """Somebody is there, and lets us in."""
    if _to_be_made(home):
        return ok("the first sweep makes it")
    with _connected(home) as database:
        if database.dialect.name == "sqlite":
            database.exec_driver_sql("SELECT count(*) FROM sqlite_master")
            return ok("SQLite opens the file")
        version = ".".join(map(str, database.dialect.server_version_info or ()))
        return ok(f"{database.dialect.name} {version} answers")


def tables(home: Home) -> Verdict:
    """Of this version, or of one that a sweep brings up to date."""
    from bhnbench.ledger.database import SCHEMA

    if _to_be_made(home):
        return skipped("there is no ledger yet")
    version = _version(home)
    if version == SCHEMA:
        return ok(f"schema {version}")
    if version is None:
        return ok(f"none yet; the first sweep makes those of schema {SCHEMA}")
    if version < SCHEMA:
        return ok(f"schema {version}; the next sweep brings them to {SCHEMA}")
    found = f"schema {version}, written by a newer bhnbench; here is {SCHEMA}"
    return failed(found, "upgrade bhnbench, or name another home with --home")


def writing(home: Home) -> Verdict:
    """A sweep may write what it finds."""
    from sqlalchemy.exc import DatabaseError

    if _to_be_made(home):
        return skipped("there is no ledger yet")
    with _connected(home) as database:
        if database.dialect.name != "sqlite":
            return _may_write(database)
        try:
            database.exec_driver_sql("BEGIN IMMEDIATE")
        except DatabaseError as error:
            fix = "see who owns the file and its folder; wait if a sweep is at work on it"
            return failed(f"not allowed: {reason(error, home.ledger)}", fix)
        database.exec_driver_sql("ROLLBACK")
    return ok("allowed")


def _may_write(database: Connection) -> Verdict:
    """PostgreSQL: neither a standby nor a role that may only read."""
    from sqlalchemy import inspect

    if database.exec_driver_sql("SHOW transaction_read_only").scalar() == "on":
        fix = "name the primary server in $BHNBENCH_LEDGER, or allow writing there"
        return failed("the database is read-only", fix)
    user, schema = database.exec_driver_sql("SELECT current_user, current_schema()").one()
    wanted = "has_schema_privilege(current_schema(), 'CREATE')"
    grant = f'GRANT CREATE, USAGE ON SCHEMA "{schema}" TO "{user}"'
    if inspect(database).has_table("runs"):
        wanted = "has_table_privilege('runs', 'INSERT, UPDATE, DELETE')"
        grant = f'GRANT ALL ON ALL TABLES IN SCHEMA "{schema}" TO "{user}"'
    if schema is not None and database.exec_driver_sql(f"SELECT {wanted}").scalar():
        return ok(f"allowed to {user}")
    return failed(f"{user} may not write in schema {schema}", f"in the database: {grant}")


class _AwayError(Exception):
    """The database does not let us in, or not do that."""


def _told(look: Callable[[Home], Verdict], home: Home) -> Verdict:
    """The look, with the database's own words where it refuses."""
    try:
        return look(home)
    except _AwayError as away:
        fix = next(fix for words, fix in FIXES.items() if words in str(away))
        return failed(str(away), fix)


def _to_be_made(home: Home) -> bool:
    file = _sqlite_file(home)
    return file is not None and not file.exists()


def _sqlite_file(home: Home) -> Path | None:
    url = parse(home.ledger)
    is_file = url is not None and url.get_backend_name() == "sqlite" and url.database
    return Path(url.database) if url is not None and url.database and is_file else None


def _version(home: Home) -> str | None:
    from sqlalchemy import inspect

    with _connected(home) as database:
        if not inspect(database).has_table("alembic_version"):
            return None
        row = database.exec_driver_sql("SELECT version_num FROM alembic_version").first()
    return str(row[0]) if row else None


@contextmanager
def _connected(home: Home) -> Iterator[Connection]:
    """A connection of this check's own, which gives up in seconds."""
    from sqlalchemy import create_engine
    from sqlalchemy.exc import DatabaseError
    from sqlalchemy.pool import NullPool

    key = "timeout" if _sqlite_file(home) else "connect_timeout"
    limit = {key: ANSWER_SECONDS}
    engine = create_engine(
        home.ledger, poolclass=NullPool, connect_args=limit, isolation_level="AUTOCOMMIT"
    )
    try:
        with engine.connect() as database:
            yield database
    except DatabaseError as error:
        raise _AwayError(reason(error, home.ledger)) from None
    finally:
        engine.dispose()
