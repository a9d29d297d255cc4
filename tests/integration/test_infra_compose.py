"""The compose file without Docker: each service's command as it stands, on a host of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.infra_files import INFRA, compose
from tests.integration.cluster.hosts import (
    Host,
    NamespaceNetwork,
    shared_folder,
    wait_until,
    why_no_namespaces,
)
from tests.integration.cluster.services import find_postgres

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(why_no_namespaces()), reason=why_no_namespaces() or "-"),
    pytest.mark.skipif(find_postgres() is None, reason="PostgreSQL's programs are not installed"),
]
SERVICES = {"postgres": 4, "mlflow": 5, "ray-head": 1, "ray-worker": 11}  # and their addresses
PROGRAMS = str(Path(sys.executable).parent)
SWEEP = """\
name: compose
tasks: [{name: toy_regression, n_train: 20, epochs: 2}]
methods: [maximum_likelihood]
evaluate: {seeds: 2}
"""
REQUEST = """
import sys, urllib.error, urllib.request
request = urllib.request.Request(sys.argv[1], headers=dict(h.split("=") for h in sys.argv[2:]))
try:
    print(urllib.request.urlopen(request, timeout=20).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""


@dataclass
class Stack:
    """The services, up."""

    folder: Path
    network: NamespaceNetwork
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def environment(self, name: str) -> dict[str, str]:
        given = compose()["services"][name]["environment"]
        own = {"PATH": f"{PROGRAMS}:{os.environ['PATH']}", "HOME": str(self.folder)}
        short = {"RAY_TMPDIR": str(self.network.own)}
        return {**own, **short, **given, "BHNBENCH_DATA": str(self.folder / "data")}

    def switch_on(self, name: str) -> Host:
        """A host with the secrets that its service has, and the names of the others."""
        host = self.network.add(name, SERVICES[name])
        host.do("mount", "-t", "tmpfs", "run", "/run")
        host.do("mkdir", "/run/secrets")
        for secret in compose()["services"][name]["secrets"]:
            host.do("cp", "--preserve=mode", self.folder / "secrets" / secret, "/run/secrets")
        host.do("mount", "--bind", self.folder / "hosts", "/etc/hosts")
        return host

    def start(self, name: str) -> None:
        """A service by its command, but for a volume that this machine does not have."""
        service = compose()["services"][name]
        words = [re.sub(r"\$\{\w+:-(\w+)\}", r"\1", word) for word in service["command"]]
        words = [word.replace("=/artifacts", f"={self.folder}/artifacts") for word in words]
        host = self.switch_on(name)
        log = self.folder / f"{name}.log"
        assert service["restart"] == "unless-stopped"
        again = ["sh", "-c", 'while :; do "$@"; sleep 1; done', "sh"]
        self.processes.append(host.start([*again, *words], log, **self.environment(name)))

    def run(self, name: str, *command: object, **more: str) -> subprocess.CompletedProcess[str]:
        variables = self.environment(name) | more
        return self.network.hosts[name].run([str(word) for word in command], **variables)

    def status(self, name: str, url: str, *headers: str) -> str:
        """What HTTP answers on a host."""
        return self.run(name, sys.executable, "-c", REQUEST, url, *headers).stdout.strip()

    def healthy(self, name: str) -> bool:
        _, *command = compose()["services"][name]["healthcheck"]["test"]
        return self.run(name, *command).returncode == 0


def start_postgres(stack: Stack) -> None:
    """What the image does at its first start: a user with a password, databases, a server."""
    programs, service = find_postgres(), compose()["services"]["postgres"]
    stack.switch_on("postgres")
    folder = stack.folder / "postgres"
    folder.mkdir()
    password = folder / "password"
    shutil.copy(stack.folder / "secrets" / "postgres_password", password)
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
        shutil.chown(password, "postgres", "postgres")
    user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    host, data = stack.network.hosts["postgres"], folder / "data"
    options = [f"--username={service['environment']['POSTGRES_USER']}", f"--pwfile={password}"]
    options += ["--auth=scram-sha-256", "--no-sync", "--encoding=UTF8"]
    host.do(*user, programs / "initdb", "--pgdata", data, *options)
    with (data / "pg_hba.conf").open("a") as file:
        file.write("host all all 10.77.0.0/24 scram-sha-256\n")
    command = [*user, programs / "postgres", "-D", data, "-k", folder, "-c", "fsync=off"]
    command += ["-c", "listen_addresses=*"]
    stack.processes.append(host.start(command, stack.folder / "postgres.log"))
    ready = [programs / "pg_isready", "--quiet", "--host", folder]
    wait_until(lambda: host.run(ready).returncode == 0, 60, "PostgreSQL")
    client = [programs / "psql", "--host", folder, "--username=bhnbench", "--dbname=postgres"]
    secret = {"PGPASSFILE": str(stack.folder / "secrets" / "pgpass")}
    for statement in ("CREATE DATABASE bhnbench", compose()["configs"]["databases"]["content"]):
        assert host.run([*client, "--command", statement], **secret).returncode == 0


@contextmanager
def open_stack() -> Iterator[Stack]:
    with shared_folder() as folder:
        network = NamespaceNetwork(folder)
        stack = Stack(folder, network)
        command = [INFRA / "secrets.sh", folder / "secrets"]
        subprocess.run(command, check=True, capture_output=True)
        names = "".join(f"10.77.0.{number} {name}\n" for name, number in SERVICES.items())
        (folder / "hosts").write_text(f"127.0.0.1 localhost\n{names}")
        try:
            start_postgres(stack)
            for name in ("mlflow", "ray-head", "ray-worker"):
                stack.start(name)
            yield stack
        finally:
            network.close()
            for process in stack.processes:
                process.wait(60)


def test_the_services_start_as_written_and_run_a_sweep() -> None:
    with open_stack() as stack:
        joined = stack.folder / "ray-worker.log"
        wait_until(lambda: "Ray runtime started" in joined.read_text(), 300, "the worker")
        wait_until(lambda: stack.healthy("mlflow"), 300, "MLflow", pause=1)
        file = stack.folder / "sweep.yaml"
        file.write_text(SWEEP)
        home = {"BHNBENCH_HOME": str(stack.network.own / "home")}

        done = stack.run("ray-head", "bhnbench", "sweep", file, "--address", "auto", **home)

        assert done.returncode == 0, done.stderr
        assert "2/2" in done.stdout
        shown = stack.run("ray-head", "bhnbench", "show", "1", "--json", **home)
        assert json.loads(shown.stdout)["provenance"]["host"] == "ray-worker"
        everything = "".join(p.read_text(errors="replace") for p in stack.folder.glob("*.log"))
        for secret in ("ray_token", "postgres_password"):
            text = (stack.folder / "secrets" / secret).read_text()
            assert text not in done.stdout + done.stderr + shown.stdout + everything
            for host in stack.network.hosts.values():
                assert not any(text in line for line in host.commands().values())

        # Who names MLflow otherwise, or has no token, or another password, stays outside.
        assert stack.status("ray-head", "http://mlflow:5000/health") == "200"
        api = "http://mlflow:5000/api/2.0/mlflow/experiments/get-by-name?experiment_name=compose"
        assert stack.status("ray-head", api) == "200"
        assert stack.status("ray-head", api, "Host=evil.example") == "403"
        jobs = "http://ray-head:8265/api/jobs/"
        token = (stack.folder / "secrets" / "ray_token").read_text()
        assert stack.status("ray-worker", jobs) == "401"
        assert stack.status("ray-worker", jobs, "Authorization=Bearer 0") == "403"
        assert stack.status("ray-worker", jobs, f"Authorization=Bearer {token}") == "200"
        wrong = stack.run("ray-head", "bhnbench", "status", PGPASSFILE="/nowhere", **home)
        assert wrong.returncode == 1
        assert "password" in wrong.stderr
