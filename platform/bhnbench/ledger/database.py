"""Opening the ledger's database: the right version, the right settings, clear errors."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, NoSuchModuleError

from bhnbench.errors import LedgerAwayError, LedgerError, NoLedgerError
from bhnbench.files import mount_of

SCHEMA = "0004"  # the newest migration; a test holds it to the scripts
MIGRATIONS = Path(__file__).parent / "migrations"
WRITES = "bhnbench_writes"  # execution option of a transaction


CONNECT_SECONDS = 10
ANSWER_SECONDS = 20  # until a connection whose other end is silent counts as broken
LOCK = 7220455  # any number that is ours
PAUSE_SECONDS = 1.0  # between two tries to reach a server
P = ParamSpec("P")
T = TypeVar("T")


class Patient(Protocol):
    """Has a server that may be away for a while."""

    patience_seconds: float


S = TypeVar("S", bound=Patient)


def patient(verb: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """Repeat a verb, which is one transaction, while the server is away, as long as may be."""

    @functools.wraps(verb)
    def act(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        until = time.monotonic() + self.patience_seconds
        while True:
            try:
                return verb(self, *args, **kwargs)
            except LedgerAwayError:
                if time.monotonic() > until:
                    raise
            time.sleep(PAUSE_SECONDS)

    return act


def open_engine(address: str, *, create: bool) -> Engine:
    """An engine on a ledger of the current version.

    Args:
        address: a SQLAlchemy URL.
        create: make the ledger, or bring an older one up to date. Without it a ledger
            that is not there is an error, and nothing is written.

    Raises:
        LedgerError: it cannot be opened, or a newer bhnbench wrote it.
    """
    url = _parse(address)
    shown = url.set(query={}).render_as_string(hide_password=True)  # a query may hold secrets too
    sqlite_file = Path(url.database) if url.drivername == "sqlite" and url.database else None
    if sqlite_file is not None:
        if not create and not sqlite_file.exists():
            raise NoLedgerError(
                f"{sqlite_file}: there is no ledger yet; start a sweep to make one"
            )
        if create:
            _refuse_network(sqlite_file)
            _make_folder(sqlite_file.parent)
    engine = create_engine(
        url, pool_pre_ping=sqlite_file is None, connect_args=_connect_arguments(url)
    )
    if sqlite_file is not None:
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    try:
        _bring_up_to_date(engine, shown, create=create)
    except DatabaseError as error:
        reason = str(error.orig).strip().splitlines()[0] if error.orig else str(error)
        engine.dispose()
        raise LedgerError(f"{shown}: the ledger cannot be opened: {reason}") from None
    except LedgerError:
        engine.dispose()
        raise
    return engine


def _parse(address: str) -> URL:
    try:
        url = make_url(address)
        url.get_dialect()
    except (ArgumentError, NoSuchModuleError, ValueError):
        rule = "must be a database URL such as sqlite:///ledger.db or postgresql+psycopg://..."
        raise LedgerError(f"BHNBENCH_LEDGER {rule}") from None  # may hold a password: not shown
    except ModuleNotFoundError as error:
        raise LedgerError(
            f"the ledger's database needs the Python package {error.name}; "
            "pip install 'bhnbench[postgres]'"
        ) from None
    return url


def _connect_arguments(url: URL) -> dict[str, object]:
    """A host that is cut off does not answer at all: give up in seconds, not in minutes."""
    if not url.drivername.startswith("postgresql"):
        return {}
    limits: dict[str, object] = {
        "connect_timeout": CONNECT_SECONDS,
        "tcp_user_timeout": 1000 * ANSWER_SECONDS,
        "keepalives_idle": ANSWER_SECONDS // 2,
        "keepalives_interval": ANSWER_SECONDS // 4,
        "keepalives_count": 2,
    }
    return {name: limit for name, limit in limits.items() if name not in url.query}


def _refuse_network(file: Path) -> None:
    mount = mount_of(file)
    if mount is not None and mount.on_a_network:
        raise LedgerError(
            f"{file}: an SQLite ledger must lie on a disk of this machine, but {mount.folder} is "
            f"of kind {mount.kind}, where its locks cannot be relied on; name a home on another "
            "disk with --home, or set BHNBENCH_LEDGER to a PostgreSQL database"
        )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LedgerError(f"{folder}: the folder cannot be made: {error.strerror}") from error


def _prepare_sqlite(connection: Any, _record: object) -> None:  # noqa: ANN401 - DB-API
    connection.isolation_level = None  # transactions begin as _begin_sqlite says
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA busy_timeout=30000")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")  # safe with WAL: a crash loses no commit order
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    """Who will write says so at once: one who read first may find that it is too late to write."""
    writes = connection.get_execution_options().get(WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _bring_up_to_date(engine: Engine, shown: str, *, create: bool) -> None:
    with engine.connect() as connection:
        version = None
        if inspect(connection).has_table("alembic_version"):
            version = connection.scalar(text("SELECT version_num FROM alembic_version"))
    if version == SCHEMA:
        return
    if version is not None and version > SCHEMA:
        raise LedgerError(
            f"{shown}: a newer bhnbench wrote this ledger (schema {version}, here {SCHEMA}); "
            "upgrade bhnbench, or name another home with --home"
        )
    if not create:
        state = f"of schema {version}, here {SCHEMA}" if version else "empty"
        raise NoLedgerError(
            f"{shown}: the ledger is {state}; start a sweep to bring it up to date"
        )
    _migrate(engine)


def one_at_a_time(connection: Connection) -> None:
    """Wait until no other driver is in such a transaction; on SQLite only one writes anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})


def _migrate(engine: Engine) -> None:
    from alembic import command  # 0.3 s: only for the command that needs it
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    with engine.execution_options(**{WRITES: True}).begin() as connection:
        one_at_a_time(connection)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
