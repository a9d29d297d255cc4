"""`bhnbench doctor`: the ledger, on databases that are away, closed, old, new or read-only."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from bhnbench_doubles.examined import broken, examine
from sqlalchemy import create_engine, text

from bhnbench.ledger.database import SCHEMA
from bhnbench.ledger.ledger import Ledger

OLD = Path(__file__).parents[1] / "unit" / "ledger-0001.sql"


@pytest.fixture(autouse=True)
def own_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the home's ledger is to lie."""
    (tmp_path / "home").mkdir()
    return tmp_path / "home" / "ledger.db"


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("no url: s3cret", "$BHNBENCH_LEDGER is no database URL"),
        ("mysql://me:s3cret@host/x", "mysql://me:***@host/x: must be of sqlite and postgresql"),
        (
            "postgresql+psycopg2://me:s3cret@host/x",
            "***@host/x: needs the Python package psycopg2",
        ),
    ],
)
def test_addresses_that_lead_nowhere(
    monkeypatch: pytest.MonkeyPatch, url: str, found: str
) -> None:
    monkeypatch.setenv("BHNBENCH_LEDGER", url)
    findings = examine()
    finding = broken("Ledger: address", findings)
    assert finding["state"] == "failed"
    assert found in finding["found"]
    assert "postgresql+psycopg://" in finding["fix"]
    assert "s3cret" not in str(findings)
    assert findings["Ledger: connection"]["found"] == "address failed"


def test_a_port_where_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"postgresql+psycopg://me:s3cret@127.0.0.1:{free_port()}/x?password=s3cret2"
    monkeypatch.setenv("BHNBENCH_LEDGER", url)
    findings = examine()
    finding = broken("Ledger: connection", findings)
    assert "refused" in finding["found"]
    assert "s3cret" not in str(findings)


def test_a_server_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        monkeypatch.setenv("BHNBENCH_LEDGER", f"postgresql+psycopg://me@127.0.0.1:{port}/x")
        started = time.monotonic()
        finding = broken("Ledger: connection", examine())
        assert time.monotonic() - started < 60
    assert "timeout" in finding["found"]


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of this test's own that asks for passwords: host, port and database of its URL."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs or os.getuid():
        pytest.skip("needs PostgreSQL's programs, and root to start them as another user")
    bin_ = programs[-1].parent
    with tempfile.TemporaryDirectory(prefix="pg", dir="/tmp") as name:  # a short socket path
        folder = Path(name)
        (folder / "password").write_text("s3cret")
        port = free_port()
        as_postgres = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        subprocess.run(["chown", "-R", "postgres:postgres", name], check=True)
        options = ["--username=owner", f"--pwfile={folder / 'password'}", "--auth=scram-sha-256"]
        initialise = [bin_ / "initdb", "-D", folder / "data", "--no-sync", *options]
        subprocess.run([*as_postgres, *initialise], check=True, capture_output=True, cwd=name)
        settings = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        control = [*as_postgres, bin_ / "pg_ctl", "-D", folder / "data", "-w", "-s"]
        start = [*control, "-o", settings, "-l", folder / "log", "start"]
        subprocess.run(start, check=True, cwd=name)
        try:
            yield f"127.0.0.1:{port}/postgres"
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], check=True, cwd=name)


@pytest.mark.parametrize(
    ("user", "database", "found", "fix"),
    [
        ("owner:wr0ng", "postgres", "password authentication failed", "the right password"),
        ("owner", "postgres", "no password supplied", "the right password"),
        ("owner:s3cret", "nowhere", 'database "nowhere" does not exist', "createdb"),
    ],
)
def test_a_server_that_does_not_let_us_in(
    monkeypatch: pytest.MonkeyPatch,
    postgres: str,
    user: str,
    database: str,
    found: str,
    fix: str,
) -> None:
    address = postgres.replace("/postgres", f"/{database}")
    monkeypatch.setenv("BHNBENCH_LEDGER", f"postgresql+psycopg://{user}@{address}")
    findings = examine()
    finding = broken("Ledger: connection", findings)
    assert found in finding["found"]
    assert fix in finding["fix"]
    assert "wr0ng" not in str(findings)
    assert "s3cret" not in str(findings)


def test_a_user_who_may_only_read(monkeypatch: pytest.MonkeyPatch, postgres: str) -> None:
    owner, reader = (f"postgresql+psycopg://{name}:s3cret@{postgres}" for name in ("owner", "eve"))
    engine = create_engine(owner, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("CREATE ROLE eve LOGIN PASSWORD 's3cret'"))
    monkeypatch.setenv("BHNBENCH_LEDGER", reader)
    finding = broken("Ledger: writing", examine())  # its tables are still to be made
    assert finding["found"] == "eve may not write in schema public"
    assert finding["fix"].endswith('GRANT CREATE, USAGE ON SCHEMA "public" TO "eve"')
    Ledger(owner, create=True).close()
    with engine.connect() as connection:
        connection.execute(text("GRANT SELECT ON ALL TABLES IN SCHEMA public TO eve"))
    findings = examine()
    assert findings["Ledger: tables"]["found"] == f"schema {SCHEMA}"
    finding = broken("Ledger: writing", findings)
    with engine.connect() as connection:
        connection.execute(text(finding["fix"].removeprefix("in the database: ")))
        assert examine()["Ledger: writing"]["state"] == "ok"
        connection.execute(text("ALTER ROLE eve SET default_transaction_read_only = on"))
    finding = broken("Ledger: writing", examine())
    assert finding["found"] == "the database is read-only"
    engine.dispose()


def test_a_file_that_is_no_database(file: Path) -> None:
    file.write_bytes(b"garbage" * 4096)
    finding = broken("Ledger: connection", examine())
    assert finding["found"] == "file is not a database"
    assert "--home" in finding["fix"]


def test_tables_of_a_newer_version(ledger_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BHNBENCH_LEDGER", ledger_address)
    Ledger(ledger_address, create=True).close()
    assert examine()["Ledger: tables"]["found"] == f"schema {SCHEMA}"
    engine = create_engine(ledger_address)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    finding = broken("Ledger: tables", examine())
    assert "schema 9999, written by a newer bhnbench" in finding["found"]


def test_tables_of_an_older_version_are_no_fault(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(OLD.read_text())
    before = file.read_bytes()
    findings = examine()
    expected = f"schema 0001; the next sweep brings them to {SCHEMA}"
    assert findings["Ledger: tables"]["found"] == expected
    assert file.read_bytes() == before


LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""


def test_a_file_that_another_process_does_not_let_go(file: Path) -> None:
    Ledger(f"sqlite:///{file}", create=True).close()
    command = [sys.executable, "-c", LOCK, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        finding = broken("Ledger: writing", examine())
        assert finding["found"] == "not allowed: database is locked"
        process.kill()
    assert examine()["Ledger: writing"]["state"] == "ok"
