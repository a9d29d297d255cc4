"""The network that cluster tests run on: its cables, its plugs, and that nothing is left of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.cluster.hosts import (
    child_pids,
    open_network,
    shared_folder,
    wait_until,
    why_no_namespaces,
)  # fmt: skip

pytestmark = pytest.mark.slow

CALL = "import socket, sys; socket.create_connection((sys.argv[1], 8000), timeout=1)"
MAKE = """
import sys, time
from pathlib import Path
from tests.integration.cluster.hosts import open_network, wait_until
with open_network(Path(sys.argv[1])) as network:
    host = network.add("one", 1)
    host.start(["sleep", "1000"], Path(sys.argv[1]) / "log")
    wait_until(lambda: "sleep 1000" in host.commands().values(), 20, "a program")
    print(*host.pids(), flush=True)
    time.sleep(1000)
"""


@pytest.fixture(autouse=True, scope="module")
def namespaces() -> None:
    if why_no_namespaces():
        pytest.skip(f"needs network namespaces: {why_no_namespaces()}")


def test_hosts_reach_each_other_until_a_cable_or_a_plug_is_pulled() -> None:
    with shared_folder() as folder, open_network(folder) as network:
        one, two = network.add("one", 1), network.add("two", 2)
        serve = [sys.executable, "-m", "http.server", "--bind", one.address]
        process = one.start(serve, folder / "log")

        def reached() -> bool:
            return two.run([sys.executable, "-c", CALL, one.address]).returncode == 0

        wait_until(reached, 60, "a server")
        network.cut("one")
        assert not reached()
        network.heal("one")
        wait_until(reached, 60, "a server behind a cable")
        assert one.run(["hostname"]).stdout == "one\n"
        (one_own := network.own / "file").touch()
        assert one.run(["ls", network.own]).stdout == ""  # a disk of its own
        assert one_own.exists()
        (pid,) = child_pids(process.pid)
        assert pid in one.pids()
        assert pid not in two.pids()
        network.end("one")
        assert process.wait(20)
        assert not Path(f"/proc/{pid}").exists()
        assert not reached()
        network.add("one", 1)  # and switched on again


def test_nothing_is_left_of_a_network_whose_maker_was_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", MAKE, str(tmp_path)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as maker:
        assert maker.stdout is not None
        pids = maker.stdout.readline().split()
        maker.kill()
    assert len(pids) >= 3
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), 20, "their end")
