"""The servers that a cluster's hosts share: PostgreSQL and MLflow, each on a host of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from tests.integration.cluster.hosts import Host, Network, kill, wait_until

QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def find_postgres() -> Path | None:
    """The folder of the newest PostgreSQL's programs."""
    on_path = shutil.which("initdb")
    if on_path:
        return Path(on_path).resolve().parent
    found = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest = max(found, key=lambda path: float(path.parts[-3]), default=None)
    return newest.parent if newest else None


class Postgres:
    """A PostgreSQL server; without a password, since only the hosts reach it."""

    port = 5432

    def __init__(self, network: Network, folder: Path) -> None:
        """Make an empty cluster of databases in ``folder`` and start its server.

        Raises:
            FileNotFoundError: PostgreSQL is not installed.
        """
        programs = find_postgres()
        if programs is None:
            raise FileNotFoundError("PostgreSQL's programs")
        self._programs, self._folder = programs, folder
        self.host: Host = network.add("postgres", 4)
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir()
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
        options = ["-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8"]
        done = self.host.run([*self._user, programs / "initdb", "-D", self._data, *options])
        if done.returncode:
            raise OSError(done.stderr)
        with (self._data / "pg_hba.conf").open("a") as file:
            file.write(f"host all all {self.host.address}/24 trust\n")
        self.start()

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    @property
    def _user(self) -> list[str]:
        """PostgreSQL refuses to run as root."""
        user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        return [] if os.geteuid() else user

    def url(self, database: str) -> str:
        """For the hosts."""
        return f"postgresql+psycopg://postgres@{self.host.address}:{self.port}/{database}"

    def local_url(self, database: str) -> str:
        """For the test, which is on none of them: by a socket in the file system."""
        return f"postgresql+psycopg://postgres@/{database}?host={self._folder}&port={self.port}"

    def start(self) -> None:
        """Start the server and wait until it answers."""
        settings = [f"listen_addresses={self.host.address}", f"port={self.port}"]
        settings += [f"unix_socket_directories={self._folder}"]
        settings += ["fsync=off"]  # the server may be killed, but this machine will not fall
        options = [word for setting in settings for word in ("-c", setting)]
        command = [*self._user, self._programs / "postgres", "-D", self._data, *options]
        self._process = self.host.start(command, self._folder.parent / "postgres.log")
        wait_until(self.answers, 60, "PostgreSQL")

    def stop(self) -> None:
        """End the server without a word to its clients."""
        if self._process is not None:
            kill(self._process, signal.SIGQUIT)
            self._process.wait(30)

    def answers(self) -> bool:
        """Whether it takes connections."""
        return self._call("pg_isready", "-q").returncode == 0

    def create(self, database: str) -> None:
        """Make an empty database."""
        self._call("createdb", database).check_returncode()

    def _call(self, program: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        where = ["-U", "postgres", "-h", str(self._folder), "-p", str(self.port)]
        return subprocess.run([str(self._programs / program), *where, *arguments], check=False)


class MLflowServer:
    """An MLflow tracking server that keeps its database and files in a folder."""

    port = 5000

    def __init__(self, network: Network, folder: Path) -> None:
        """Start a server with nothing in it."""
        self._network, self._folder = network, folder
        folder.mkdir()
        self.start()

    @property
    def url(self) -> str:
        """For the hosts."""
        return f"http://{self.host.address}:{self.port}"

    @property
    def store(self) -> str:
        """The server's database, for the test, which is on none of the hosts."""
        return f"sqlite:///{self._folder}/mlflow.db"

    def start(self) -> None:
        """Start the server's host and wait until it answers."""
        self.host: Host = self._network.add("mlflow", 5, **QUIET)
        address = f"{self.host.address}:{self.port}"
        options = ["--host", self.host.address, "--port", str(self.port), "--workers", "1"]
        options += ["--allowed-hosts", address, "--backend-store-uri", self.store]
        options += ["--artifacts-destination", str(self._folder / "artifacts")]
        command = [sys.executable, "-m", "mlflow", "server", *options]
        self.host.start(command, self._folder.parent / "mlflow.log")
        wait_until(self.answers, 300, "MLflow's server", pause=0.5)

    def stop(self) -> None:
        """Pull the plug of the server's host."""
        self._network.end("mlflow")

    def answers(self) -> bool:
        """Whether it is up."""
        look = f"import urllib.request as r; r.urlopen('{self.url}/health', timeout=2)"
        return self.host.run([sys.executable, "-c", look]).returncode == 0
