"""Drivers that end by a machine's signal, and several at one ledger."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from bhnbench_doubles.commands import (
    bhnbench,
    demo,
    executions,
    scores,
    start,
    wait_for_executions,
)  # fmt: skip

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def log_executions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The task `guess` writes a line there whenever it is executed."""
    monkeypatch.setenv("BHNBENCH_TEST_LOG", str(tmp_path / "executions.log"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_machine_that_wants_its_place_back(tmp_path: Path, number: signal.Signals) -> None:
    path = demo(tmp_path, n_steps=5, seconds=0.1)
    process = start("sweep", path)
    wait_for_executions(tmp_path, 4, process)
    os.kill(process.pid, number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert out == ""
    assert f"{number.name}: ending the runs under way" in err
    assert f"go on with: bhnbench sweep {path}" in err
    assert "Traceback" not in err
    assert "SIGTERM handler" not in err  # Ray's own report
    status = json.loads(bhnbench("status", "--json"))
    assert status["left"] > 0
    assert not any(s["search"]["running"] + s["evaluate"]["running"] for s in status["studies"])
    bhnbench("sweep", path)
    assert json.loads(bhnbench("status", "--json"))["left"] == 0
    assert executions(tmp_path) <= 12 + (os.cpu_count() or 1)


def test_the_same_sweep_by_two_drivers_at_once(
    tmp_path: Path, ledger_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is executed twice, and both end with the whole leaderboard."""
    path = demo(tmp_path, n_steps=5, seconds=0.1)
    alone = bhnbench("sweep", path, "--json", "--home", tmp_path / "alone")
    (tmp_path / "executions.log").unlink()
    monkeypatch.setenv("BHNBENCH_LEDGER", ledger_address)
    drivers = [start("sweep", path, "--json", "--home", tmp_path / name) for name in ("a", "b")]
    ends = [driver.communicate(timeout=200) for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], ends
    assert executions(tmp_path) == 12
    assert [scores(out) == scores(alone) for out, _ in ends] == [True, True]
    counts = [
        int(err.split(" runs executed")[0].split()[-1]) for _, err in ends if "runs exec" in err
    ]
    assert sum(counts) in (11, 12)  # "1 run executed" is not counted


def test_a_driver_that_died_is_succeeded_by_another(
    tmp_path: Path, ledger_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The heir need not be told: the dead one's lease ends, and its runs are taken over."""
    path = demo(tmp_path, n_steps=5, seconds=0.1)
    monkeypatch.setenv("BHNBENCH_LEDGER", ledger_address)
    dead = start("sweep", path, "--home", tmp_path / "dead")
    wait_for_executions(tmp_path, 4, dead)
    os.kill(dead.pid, signal.SIGKILL)
    dead.communicate(timeout=30)
    before = executions(tmp_path)
    heir = json.loads(bhnbench("sweep", path, "--json", "--home", tmp_path / "heir"))
    assert all(seed["state"] == "done" for task in heir["tasks"] for row in task["methods"]
               for seed in row["seeds"])  # fmt: skip
    assert 12 <= executions(tmp_path) <= 12 + (os.cpu_count() or 1)
    assert executions(tmp_path) > before
