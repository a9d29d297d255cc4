"""A job's driver is started again where it was lost, and only there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bhnbench.engine import restarts

# Counts its starts in a file, and ends each as its arguments say: a code, or by a signal.
DRIVER = """
import os, pathlib, sys, time
count = pathlib.Path(sys.argv[1])
start = len(count.read_text()) if count.exists() else 0
count.write_text("x" * (start + 1))
how = sys.argv[2:][min(start, len(sys.argv) - 3)]
if how == "wait":
    time.sleep(60)
if how.startswith("-"):
    os.kill(os.getpid(), -int(how))
sys.exit(int(how))
"""


def supervise(folder: Path, *ends: str, restarts: int = 2) -> tuple[int, int, str]:
    """Exit code, number of starts, what was said."""
    process = start(folder, *ends, restarts=restarts)
    _, said = process.communicate(timeout=60)
    return process.returncode, len((folder / "count").read_text()), said


def start(folder: Path, *ends: str, restarts: int = 2) -> subprocess.Popen[str]:
    code = (
        "import sys; from bhnbench.engine import restarts as r; r.PAUSE_SECONDS = 0.01;"
        f"sys.exit(r.keep_running(sys.argv[1:], restarts={restarts}))"
    )
    driver = [sys.executable, "-c", DRIVER, str(folder / "count"), *ends]
    return subprocess.Popen([sys.executable, "-c", code, *driver], stderr=-1, text=True)


@pytest.mark.parametrize("code", [0, 1, 2, 3, 130])
def test_what_ended_by_itself_is_not_started_again(tmp_path: Path, code: int) -> None:
    assert supervise(tmp_path, str(code)) == (code, 1, "")


def test_what_was_killed_or_interrupted_goes_on(tmp_path: Path) -> None:
    code, n_starts, said = supervise(tmp_path, "-9", "75", "3")
    assert (code, n_starts) == (3, 3)
    assert said.splitlines() == [
        "the driver ended by signal 9; starting it again (1 of 2)",
        "the driver ended with code 75; starting it again (2 of 2)",
    ]


def test_not_for_ever(tmp_path: Path) -> None:
    code, n_starts, _ = supervise(tmp_path, "-11")
    assert (code, n_starts) == (128 + 11, 3)


def test_a_job_that_was_stopped_is_not_started_again(tmp_path: Path) -> None:
    process = start(tmp_path, "wait")
    until = time.monotonic() + 30
    while not (tmp_path / "count").exists():
        assert time.monotonic() < until
        time.sleep(0.05)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for pid in (process.pid, *map(int, children)):  # as Ray does it
        os.kill(pid, signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    assert said == ""
    assert process.returncode == 128 + signal.SIGTERM
    assert (tmp_path / "count").read_text() == "x"


def test_the_home_is_not_the_working_folder_which_ray_removes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commands = []
    monkeypatch.delenv("BHNBENCH_HOME")
    monkeypatch.setattr(restarts, "keep_running", lambda command: commands.append(command) or 0)
    assert restarts.main(["sweep.yaml"]) == 0
    assert commands == [[sys.executable, "-m", "bhnbench.cli", "sweep", "sweep.yaml"]]
    assert os.environ["BHNBENCH_HOME"] == str(Path.home() / "bhnbench_home")
