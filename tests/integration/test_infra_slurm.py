"""The batch script without SLURM: a small `srun` starts tasks on hosts; Ray and sweep are real."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from bhnbench.cluster.manifests import render_manifest
from bhnbench.sweep.document import read_sweep
from tests.integration.cluster.hosts import (
    NamespaceNetwork,
    shared_folder,
    wait_until,
    why_no_namespaces,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(why_no_namespaces()), reason=why_no_namespaces() or "-"),
]
# Tasks on all nodes, or on the one it names; it passes SIGTERM on, and fails as the worst of them.
SRUN = """\
#!/usr/bin/env python3
import signal, subprocess, sys
pids = dict(line.split() for line in open("NODES"))
nodes, words = list(pids), sys.argv[1:]
while words[0].startswith("--"):
    name, _, value = words.pop(0).partition("=")
    nodes = [value] if name == "--nodelist" else nodes
enter = ["--net", "--uts", "--mount", "--pid", "--wd=" + sys.path[0]]
tasks = [subprocess.Popen(["nsenter", "--target", pids[node], *enter, *words]) for node in nodes]
signal.signal(signal.SIGTERM, lambda *_: [task.terminate() for task in tasks])
sys.exit(max(task.wait() % 256 for task in tasks))
"""
SCONTROL = """\
#!/bin/sh
case "$1" in
show) cut -d' ' -f1 NODES ;;
*) echo "$@" >> REQUEUED ;;
esac
"""
SWEEP = """\
name: batch
tasks: [{name: toy_regression, n_train: 20, epochs: EPOCHS}]
methods: [maximum_likelihood]
evaluate: {seeds: 2}
"""


@dataclass
class Allocation:
    """Two nodes, and what SLURM says about them."""

    folder: Path
    network: NamespaceNetwork
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        return (self.folder / "job.log").read_text()

    @property
    def requeued(self) -> str:
        path = self.folder / "requeued"
        return path.read_text() if path.exists() else ""

    def left_behind(self) -> str:
        """What lies on the nodes' own disks."""
        hosts = self.network.hosts.values()
        return "".join(host.run(["ls", str(self.network.own)]).stdout for host in hosts)

    def start(self, epochs: int) -> None:
        """Hand in the script that is printed for a sweep."""
        file = self.folder / "sweep.yaml"
        file.write_text(SWEEP.replace("EPOCHS", str(epochs)))
        script = self.folder / "sweep.sbatch"
        script.write_text(render_manifest("slurm", read_sweep(file), file))
        first = next(iter(self.network.hosts.values()))
        told = {
            "PATH": f"{self.folder}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "BHNBENCH_HOME": str(self.folder / "home"),
            "BHNBENCH_SCRATCH": str(self.network.own),
            "SLURM_JOB_ID": str(os.getpid()),
            "SLURM_JOB_NODELIST": "node[1-2]",
            "SLURM_JOB_NUM_NODES": str(len(self.network.hosts)),
            "SLURM_CPUS_ON_NODE": "1",
        }
        environment = first.environment | told
        with (self.folder / "job.log").open("wb") as log:
            self.process = subprocess.Popen(
                ["bash", script], env=environment, stdout=log, stderr=log, cwd=self.folder
            )

    def wait(self) -> int:
        assert self.process is not None
        return self.process.wait(480)


@contextmanager
def allocate(*names: str) -> Iterator[Allocation]:
    with shared_folder() as folder:
        network = NamespaceNetwork(folder)
        allocation = Allocation(folder, network)
        try:
            for number, name in enumerate(names, 1):
                network.add(name, number)
            nodes = [f"{host.name} {host.pid}\n" for host in network.hosts.values()]
            (folder / "nodes").write_text("".join(nodes))
            for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
                text = text.replace("NODES", str(folder / "nodes"))
                (folder / name).write_text(text.replace("REQUEUED", str(folder / "requeued")))
                (folder / name).chmod(0o755)
            yield allocation
        finally:
            network.close()
            if allocation.process is not None:
                allocation.process.kill()
                allocation.process.wait(60)


def test_the_script_runs_a_sweep_on_all_nodes_and_leaves_nothing() -> None:
    with allocate("node1", "node2") as allocation:
        allocation.start(epochs=2)
        assert allocation.wait() == 0, allocation.log
        assert "2/2" in allocation.log
        assert "Running command on head node" in allocation.log
        assert not allocation.requeued
        for host in allocation.network.hosts.values():
            wait_until(lambda host=host: len(host.pids()) <= 2, 60, f"{host.commands()} to end")
        assert not allocation.left_behind()


def test_a_sweep_whose_time_is_up_saves_and_goes_back_into_the_queue() -> None:
    with allocate("node1") as allocation:
        allocation.start(epochs=100_000)
        journal = allocation.folder / "home" / "journal" / "driver.jsonl"
        wait_until(lambda: journal.exists() and "started" in journal.read_text(), 480, "a run")
        assert allocation.process is not None
        allocation.process.send_signal(signal.SIGUSR1)
        assert allocation.wait() == 75, allocation.log
        assert allocation.requeued == f"requeue {os.getpid()}\n"
        assert not allocation.left_behind()


def test_ray_that_does_not_start_is_a_failure() -> None:
    with allocate("node1") as allocation:
        (allocation.folder / "ray").write_text("#!/bin/sh\necho no Ray here >&2\n")
        (allocation.folder / "ray").chmod(0o755)
        allocation.start(epochs=2)
        assert allocation.wait() == 1
        assert "Ray did not start" in allocation.log
