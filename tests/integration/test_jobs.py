"""Sweeps as jobs of a real cluster of two nodes that asks for a token.

The nodes know nothing of the tests' own methods and tasks, and each has a folder of its own.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import requests

pytestmark = pytest.mark.slow

DOUBLES = Path(__file__).parents[1] / "doubles"
SLOW = """\
name: slow
tasks: [{name: guess, n_steps: 4, seconds: 0.25}]
methods: [constant, {name: constant, x: 0.1}]
search: {sampler: random, trials: 6}
evaluate: {seeds: 4}
"""
OWN = """\
name: own
tasks: [{name: digit_classification, dataset: mine.npz, epochs: 1}]
methods: [maximum_likelihood]
evaluate: {seeds: 2}
"""


@dataclass
class Cluster:
    address: str
    token: str
    folder: Path

    def environment(self, **changes: str) -> dict[str, str]:
        """Of a user's shell, where no token is."""
        own = {n: v for n, v in os.environ.items() if not n.startswith("RAY_")}
        return own | {"HOME": str(self.folder / "user"), "COLUMNS": "200"} | changes

    def call(
        self, *arguments: object, token: str | None = None, code: int = 0, **changes: str
    ) -> subprocess.CompletedProcess[str]:
        """Run the command as a user who has the token, or another one, or none ("")."""
        command = [sys.executable, "-m", "bhnbench.cli", *map(str, arguments)]
        word = self.token if token is None else token
        environment = self.environment(
            RAY_API_SERVER_ADDRESS=self.address,
            **{"RAY_AUTH_TOKEN": word} if word else {},
            **changes,
        )
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == code, (done.stdout, done.stderr)
        assert self.token not in done.stdout + done.stderr
        return done

    def listed(self) -> dict[str, dict[str, object]]:
        return {job["id"]: job for job in json.loads(self.call("jobs", "--json").stdout)}

    @property
    def executions(self) -> int:
        log = self.folder / "executions.log"
        return len(log.read_text().splitlines()) if log.exists() else 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(happened: Callable[[], object], seconds: float = 240) -> None:
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until, "it does not happen"
        time.sleep(0.1)


def start_node(
    folder: Path, environment: dict[str, str], *options: str
) -> tuple[subprocess.Popen[bytes], Path]:
    """`ray start`, with a temporary folder of its own; returns its log too."""
    folder.mkdir()
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *options]
    command += [f"--temp-dir={folder / 'ray'}", "--object-store-memory=80000000"]
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    return process, log


def start_head(
    cluster: Cluster, environment: dict[str, str], *options: str
) -> tuple[subprocess.Popen[bytes], Path]:
    return start_node(
        cluster.folder / "h", environment, "--head", "--node-ip-address=127.0.0.1",
        "--num-cpus=0", "--dashboard-host=127.0.0.1", "--include-dashboard=true",
        f"--dashboard-port={cluster.address.rpartition(':')[2]}",
        f"--ray-client-server-port={free_port()}",
        f"--dashboard-agent-listen-port={free_port()}", *options,
    )  # fmt: skip


def wait_until_up(node: tuple[subprocess.Popen[bytes], Path]) -> None:
    process, log = node
    until = time.monotonic() + 300
    while "Ray runtime started" not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.2)


@contextmanager
def ended(nodes: list[tuple[subprocess.Popen[bytes], Path]], folder: Path) -> Iterator[None]:
    """End the nodes, and remove the folder."""
    try:
        yield
    finally:
        for process, _ in reversed(nodes):
            process.send_signal(signal.SIGTERM)
        for process, _ in nodes:
            process.wait(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def make_cluster() -> Cluster:
    folder = Path(tempfile.mkdtemp(prefix="bhn", dir="/tmp"))  # sockets need short paths
    return Cluster(f"http://127.0.0.1:{free_port()}", secrets.token_hex(32), folder)


def cluster_environment(cluster: Cluster, **changes: str) -> dict[str, str]:
    """Of the nodes: nothing of the tests' own is on their path."""
    path = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return cluster.environment(
        PYTHONPATH=os.pathsep.join(entry for entry in path if Path(entry) != DOUBLES),
        PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        HOME=str(cluster.folder / "cluster-user"),
        RAY_USAGE_STATS_ENABLED="0",
        BHNBENCH_TEST_LOG=str(cluster.folder / "executions.log"),
        **changes,
    )


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head without slots, and a node with two."""
    cluster, port = make_cluster(), free_port()
    (cluster.folder / "token").write_text(cluster.token)
    environment = cluster_environment(
        cluster, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(cluster.folder / "token")
    )
    nodes = [start_head(cluster, environment, f"--port={port}")]
    with ended(nodes, cluster.folder):
        wait_until_up(nodes[0])
        nodes += [
            start_node(
                cluster.folder / "w", environment, f"--address=127.0.0.1:{port}", "--num-cpus=2",
                "--node-ip-address=127.0.0.2", f"--dashboard-agent-listen-port={free_port()}",
            )
        ]  # fmt: skip
        wait_until_up(nodes[1])
        yield cluster


@pytest.mark.parametrize("arguments", [["submit"], ["jobs"], ["logs"], ["stop"]])
def test_nobody_without_the_token(cluster: Cluster, tmp_path: Path, arguments: list[str]) -> None:
    if arguments == ["submit"]:
        (tmp_path / "sweep.yaml").write_text(SLOW)
        arguments = ["submit", str(tmp_path / "sweep.yaml")]
    without = cluster.call(*arguments, token="", code=1)
    assert f"error: {cluster.address}: the head asks for a token; give its own" in without.stderr
    wrong = cluster.call(*arguments, token="0" * 64, code=1)
    assert f"error: {cluster.address}: the head refuses the token" in wrong.stderr
    for refused in (without, wrong):
        assert len(refused.stderr.splitlines()) == 1
        assert not refused.stdout
    assert cluster.listed() == {}


def test_a_users_own_arrays_go_along(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (60, 4, 4), dtype=np.uint8)
    np.savez(tmp_path / "mine.npz", inputs=images, targets=np.arange(60) % 3)
    (tmp_path / "own.yaml").write_text(OWN)
    secret = "postgresql+psycopg://lab:hush@db/runs"
    refused = cluster.call("submit", "own.yaml", code=1, BHNBENCH_LEDGER=secret)
    assert "BHNBENCH_LEDGER must not hold a password" in refused.stderr
    assert "hush" not in refused.stderr
    # The home of whoever runs the cluster, since neither side names one.
    done = cluster.call(
        "submit", "own.yaml", "--cluster-env", BHNBENCH_LEDGER=secret, BHNBENCH_HOME=""
    )
    id_ = done.stdout.strip()
    assert re.fullmatch(r"own-[0-9a-f]{6}", id_)
    assert re.search(r"took along: bhnbench \S+ \(\d+ files, 0\.\d MiB packed\)", done.stderr)
    followed = cluster.call("logs", id_[:8], "--follow")
    assert "2 runs executed, 0 failed" in followed.stdout
    assert followed.stderr == f"{id_}: succeeded\n"
    assert cluster.call("logs").stdout == followed.stdout
    assert (cluster.folder / "cluster-user" / "bhnbench_home" / "ledger.db").exists()
    headers = {"Authorization": f"Bearer {cluster.token}"}
    told = requests.get(f"{cluster.address}/api/jobs/", headers=headers, timeout=10).text
    assert id_ in told
    for word in ("hush", cluster.token, "RAY_AUTH"):
        assert word not in told


def test_a_lost_driver_is_started_again_and_a_stopped_job_goes_on_when_submitted_again(
    cluster: Cluster, tmp_path: Path
) -> None:
    (tmp_path / "sweep.yaml").write_text(SLOW)
    home = tmp_path / "shared"
    submit = ("submit", tmp_path / "sweep.yaml", "--home", home)
    first = cluster.call(*submit).stdout.strip()
    wait_for(lambda: cluster.executions >= 3)
    (driver,) = drivers(home)
    os.kill(driver, signal.SIGKILL)
    lost_at = cluster.executions
    wait_for(lambda: cluster.executions >= lost_at + 4)
    assert cluster.call("stop", "last").stdout.startswith(f"{first}: stopped; submit the sweep")
    assert cluster.listed()[first]["status"] == "stopped"
    assert not drivers(home)
    refused = cluster.call("stop", first, code=1)
    assert refused.stderr == f"error: {first}: has ended already: stopped\n"
    said = cluster.call("logs", first).stdout
    assert said.count("the driver ended by signal 9; starting it again (1 of 10)") == 1
    stopped_at = cluster.executions

    second = cluster.call(*submit).stdout.strip()
    assert second != first
    followed = cluster.call("logs", "last", "-f")
    left, known = map(int, re.findall(r"slow: (\d+) runs? left, (\d+) known", followed.stdout)[0])
    assert left + known == 6 + 4 + 4
    assert known >= 3
    assert f"{left} runs executed, 0 failed" in followed.stdout
    assert cluster.executions == stopped_at + left
    assert cluster.executions <= 14 + 2 * 2  # two slots were interrupted twice
    assert {job["status"] for job in cluster.listed().values()} >= {"stopped", "succeeded"}
    status = json.loads(cluster.call("status", "--json", "--home", home).stdout)
    assert status["left"] == 0
    table = cluster.call("jobs").stdout
    assert re.search(rf"{second} │ slow +│ succeeded │ 20\d\d-\d\d-\d\d \d\d:\d\d UTC │", table)


def drivers(home: Path) -> list[int]:
    """Processes that drive a submitted sweep of that home."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            told = (folder / "environ").read_bytes().split(b"\0")
        except OSError:  # no process, or none any more
            continue
        if b"sweep" in words[3:4] and f"BHNBENCH_HOME={home}".encode() in told:
            found.append(int(folder.name))
    return found


def test_an_id_must_be_one(cluster: Cluster) -> None:
    said = cluster.call("logs", "nothing-like-it", code=1).stderr
    assert said.startswith(f"error: no job 'nothing-like-it' on {cluster.address}; known: ")
    assert len(said.splitlines()) == 1


def test_a_head_that_lets_in_everybody_is_warned_of() -> None:
    cluster = make_cluster()
    nodes = [start_head(cluster, cluster_environment(cluster), f"--port={free_port()}")]
    with ended(nodes, cluster.folder):
        wait_until_up(nodes[0])
        listed = cluster.call("jobs")
    assert listed.stdout == f"no sweep was submitted to {cluster.address}\n"
    assert listed.stderr.startswith(f"warning: {cluster.address} asks for no token: whoever")
