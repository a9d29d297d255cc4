"""`bhnbench doctor`: MLflow's databases and servers, real ones, each broken in one way."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import requests
from bhnbench_doubles.examined import broken, examine
from sqlalchemy import create_engine, text

pytestmark = pytest.mark.slow

Serve = Callable[..., str]
SERVER = ["connection", "access", "version", "artifacts", "protection"]


@pytest.fixture(autouse=True)
def own_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's folder without credentials, and no proxy before this machine."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1,localhost")
    for name in ("USERNAME", "PASSWORD", "TOKEN"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def change(store: Path, statement: str) -> None:
    engine = create_engine(f"sqlite:///{store}")
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


@pytest.fixture
def serve(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Starts an MLflow server with some options, and names it in MLFLOW_TRACKING_URI."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*options: str, host: str = "127.0.0.1", store: Path | None = None) -> str:
        if store is None:
            store = Path(shutil.copy(empty_store, tmp_path / "server.db"))
            change(store, "UPDATE experiments SET artifact_location = 'mlflow-artifacts:/0'")
        uri = f"http://127.0.0.1:{free_port()}"
        command = [sys.executable, "-m", "mlflow", "server", "--host", host, "--workers", "1"]
        command += ["--port", uri.rpartition(":")[2], "--backend-store-uri", f"sqlite:///{store}"]
        with (tmp_path / "server.log").open("wb") as log:
            environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
            process = subprocess.Popen(
                [*command, *options],
                stdout=log,
                stderr=log,
                cwd=tmp_path,
                env=environment,
                start_new_session=True,
            )
        started.append(process)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        until = time.monotonic() + 120
        while not answers(uri):
            assert process.poll() is None, (tmp_path / "server.log").read_text()
            assert time.monotonic() < until
            time.sleep(0.2)
        return uri

    yield start
    for process in started:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(uri: str) -> bool:
    try:
        return requests.get(f"{uri}/health", timeout=5).ok
    except requests.RequestException:
        return False


def own_address() -> str:
    """This machine's address in its network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.51.100.1", 9))
        except OSError:
            pytest.skip("needs a network interface besides the loopback")
        return str(probe.getsockname()[0])


@pytest.mark.parametrize(
    ("uri", "found"),
    [
        ("./mlruns", "is neither a server nor a database"),
        ("file:///somewhere/mlruns", "mlruns: is neither a server nor a database"),
        ("postgresql+psycopg2://me:s3cret@host/x", "needs the Python package psycopg2"),
    ],
)
def test_addresses_that_lead_nowhere(
    monkeypatch: pytest.MonkeyPatch, uri: str, found: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    findings = examine()
    assert found in broken("MLflow: address", findings)["found"]
    assert "s3cret" not in str(findings)


@pytest.mark.parametrize("scheme", ["http", "postgresql+psycopg"])
def test_a_port_where_nobody_listens(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    uri = f"{scheme}://me:s3cret@127.0.0.1:{free_port()}/x"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    findings = examine()
    finding = broken("MLflow: connection", findings)
    assert "refused" in finding["found"]
    assert "bhnbench sync" in finding["fix"]
    assert "s3cret" not in str(findings)


def test_a_server_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        started = time.monotonic()
        finding = broken("MLflow: connection", examine())
        assert time.monotonic() - started < 60
    assert "timed out" in finding["found"]


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "mlflow.db").write_bytes(b"garbage" * 4096)
    finding = broken("MLflow: connection", examine())
    assert finding["found"] == "file is not a database"


@pytest.mark.parametrize(
    ("revision", "found"),
    [("451aebb31d03", "older than those of MLflow"), ("ffffffffffff", "newer than those of")],
)
def test_tables_of_another_version(
    tmp_path: Path, empty_store: Path, revision: str, found: str
) -> None:
    (tmp_path / "home").mkdir()
    store = tmp_path / "home" / "mlflow.db"
    shutil.copy(empty_store, store)
    assert examine()["MLflow: tables"]["state"] == "ok"
    change(store, f"UPDATE alembic_version SET version_num = '{revision}'")
    finding = broken("MLflow: tables", examine())
    assert found in finding["found"]
    assert "mlflow" in finding["fix"]


def test_a_server_for_this_machine_alone(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve("--artifacts-destination", "kept")
    findings = examine()
    assert {findings[f"MLflow: {name}"]["state"] for name in SERVER} == {"ok"}, findings
    assert findings["MLflow: protection"]["found"] == "open to this machine alone"
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    folder = tmp_path / "site" / "mlflow-2.22.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: mlflow\nVersion: 2.22.0\n")
    finding = broken("MLflow: version", examine(), also=["This machine: packages"])
    assert "there, but 2.22.0 here" in finding["found"]
    assert "mlflow==" in finding["fix"]


def test_a_server_that_goes_by_another_name(serve: Serve) -> None:
    uri = serve("--allowed-hosts", "mlflow.example")
    finding = broken("MLflow: access", examine())
    host = uri.removeprefix("http://")
    assert finding["found"] == f"the server does not go by the name of {host}"
    assert f"--allowed-hosts {host}" in finding["fix"]


def test_a_server_that_leaves_artifacts_to_the_driver(serve: Serve, tmp_path: Path) -> None:
    folder = tmp_path / "of_the_server"
    serve("--no-serve-artifacts", "--default-artifact-root", str(folder), store=tmp_path / "s.db")
    finding = broken("MLflow: artifacts", examine())
    assert str(folder) in finding["found"]
    assert "--serve-artifacts" in finding["fix"]


def test_a_server_that_lets_everybody_in(serve: Serve) -> None:
    own = own_address()
    uri = serve("--allowed-hosts", "*", "--artifacts-destination", "kept", host="0.0.0.0")
    finding = broken("MLflow: protection", examine())
    assert f"anybody who reaches {own}:{uri.rpartition(':')[2]} may read" in finding["found"]
    assert "it answers to any name" in finding["found"]
    assert "basic-auth" in finding["fix"]
    assert "--allowed-hosts" in finding["fix"]
