"""Opening MLflow: quietly, quick to give up, and letting go of it again."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

# Before mlflow is imported; what the user has set stays.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
# A server that is away must not hold up a sweep: seconds, not the default's minutes.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
os.environ.setdefault("PGCONNECT_TIMEOUT", "10")

from mlflow import MlflowClient
from sqlalchemy import create_engine, event, inspect
from sqlalchemy.pool import NullPool

from bhnbench.tracking.addresses import parse

DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
STALE_SECONDS = 3600.0  # a store is made in some seconds; what is older was left by a killed maker


def is_database(uri: str) -> bool:
    """Whether MLflow keeps its data in a database that it opens itself."""
    url = parse(uri)
    return url is not None and url.get_backend_name() in DATABASES


def open_client(uri: str) -> MlflowClient:
    """A client for ``uri``; makes the database where there is none."""
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if is_database(uri):
        _probe(uri)
    client = MlflowClient(tracking_uri=uri)
    _commit_faster(uri)
    return client


def _commit_faster(uri: str) -> None:
    """Let SQLite wait for the disk once in a while, not at each of the commits that a run takes.

    A write-ahead log is as safe from a crash of this process, and what a power failure takes,
    `bhnbench sync` sends again. The log is a property of the file: others see it too.
    """
    with contextlib.suppress(ImportError, AttributeError):  # MLflow's own names, not its API
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        engine = SqlAlchemyStore._engine_map.get(uri)
        if engine is not None and engine.dialect.name == "sqlite":
            event.listen(engine, "connect", _use_log)
            engine.dispose()  # of connections that are open already


def _use_log(connection: Any, _record: object) -> None:  # noqa: ANN401 - DB-API
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def close_client(uri: str) -> None:
    """Let go of a database.

    MLflow keeps every store of the process. Used again after the file was replaced, it would
    write to the deleted one and report success.
    """
    if not is_database(uri):
        return
    with contextlib.suppress(ImportError, AttributeError):  # MLflow's own names, not its API
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
        from mlflow.tracking._tracking_service.utils import _tracking_store_registry

        _tracking_store_registry._get_store_with_resolved_uri.cache_clear()
        engine = SqlAlchemyStore._engine_map.pop(uri, None)
        if engine is not None:
            engine.dispose()


def _probe(uri: str) -> None:
    """Fail at once where the database cannot be reached: MLflow tries for minutes."""
    url = parse(uri)
    if url is not None and url.get_backend_name() == "sqlite" and url.database:
        _make_whole(Path(url.database))
    inspect(create_engine(uri, poolclass=NullPool)).get_table_names()


def _make_whole(file: Path) -> None:
    """Make a new SQLite store elsewhere and move it into place.

    MLflow makes its tables in many steps; killed between two of them, it leaves a file that it
    can neither use nor repair.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    prefix = f"{file.name}.part-"
    _clear(file.parent, prefix)
    if file.exists():
        return
    with tempfile.TemporaryDirectory(prefix=prefix, dir=file.parent) as folder:
        part = Path(folder) / file.name
        uri = f"sqlite:///{part}"
        MlflowClient(tracking_uri=uri).search_experiments()
        close_client(uri)
        if not file.exists():  # nobody else was faster
            for left in ("-wal", "-shm"):  # of a file that somebody removed
                file.with_name(file.name + left).unlink(missing_ok=True)
            part.replace(file)


def _clear(folder: Path, prefix: str) -> None:
    """Remove what killed makers left."""
    for path in folder.iterdir():
        with contextlib.suppress(OSError):  # somebody else removed it
            if path.name.startswith(prefix) and time.time() - path.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(path)
