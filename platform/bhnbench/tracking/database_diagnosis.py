"""MLflow's data in a database that the driver opens itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from bhnbench.findings import Verdict, failed, ok, skipped
from bhnbench.tracking.addresses import LATER, parse, reason

if TYPE_CHECKING:
    from sqlalchemy import Connection

ANSWER_SECONDS = 5


def connection(uri: str) -> Verdict:
    """It can be opened; a file that is not there is made by the first sweep."""
    from sqlalchemy.exc import DatabaseError

    if _to_be_made(uri):
        return ok("the first sweep makes it")
    try:
        with _connected(uri) as database:
            return ok(f"{database.dialect.name} answers")
    except DatabaseError as error:
        fix = f"start it, or correct $MLFLOW_TRACKING_URI; {LATER}"
        return failed(reason(error, uri), fix)


def tables(uri: str) -> Verdict:
    """As the installed MLflow wants them: it changes none by itself."""
    if _to_be_made(uri):
        return skipped("there are none yet")
    here = f"MLflow {version('mlflow')}"
    known = _known_revisions()
    with _connected(uri) as database:
        found = _revision(database)
    if found is None:
        return ok(f"none yet; {here} makes them")
    if found == known[0]:
        return ok(f"those of {here}")
    if found in known:
        fix = 'back the database up, then: mlflow db upgrade "$MLFLOW_TRACKING_URI"'
        return failed(f"older than those of {here}", _spelt(fix, uri))
    return failed(f"newer than those of {here}", "pip install --upgrade mlflow")


def _spelt(fix: str, uri: str) -> str:
    """With the address itself where it is a file: nothing in it is secret."""
    url = parse(uri)
    is_file = url is not None and url.get_backend_name() == "sqlite"
    return fix.replace("$MLFLOW_TRACKING_URI", uri) if is_file else fix


def _to_be_made(uri: str) -> bool:
    url = parse(uri)
    is_file = url is not None and url.get_backend_name() == "sqlite" and url.database
    return bool(url is not None and url.database and is_file and not Path(url.database).exists())


@contextmanager
def _connected(uri: str) -> Iterator[Connection]:
    from sqlalchemy import create_engine, inspect
    from sqlalchemy.pool import NullPool

    backend = uri.partition("+")[0].partition(":")[0]
    limit = {"timeout" if backend in ("sqlite", "mssql") else "connect_timeout": ANSWER_SECONDS}
    engine = create_engine(uri, poolclass=NullPool, connect_args=limit)
    with engine.connect() as database:
        inspect(database).get_table_names()  # a file of garbage opens, but cannot be read
        yield database


def _revision(database: Connection) -> str | None:
    from alembic.runtime.migration import MigrationContext

    return MigrationContext.configure(database).get_current_revision()


def _known_revisions() -> list[str]:
    """Of the installed MLflow, the newest first."""
    import mlflow.store
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(Path(mlflow.store.__file__).parent / "db_migrations"))
    return [script.revision for script in scripts.walk_revisions()]


LOOKS = {"connection": connection, "tables": tables}
