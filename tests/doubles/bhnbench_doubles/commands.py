"""The command line as a user has it: in processes of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

BHNBENCH = [sys.executable, "-m", "bhnbench.cli"]
DEMO = """\
name: demo
tasks: [{{name: guess, n_steps: {n_steps}, seconds: {seconds}}}]
methods: [constant, {{name: constant, x: 0.1}}]
search: {{sampler: random, trials: 6}}
evaluate: {{seeds: 3}}
"""


def bhnbench(*arguments: object, code: int | None = 0, timeout: float = 240) -> str:
    """Run the command; returns stdout."""
    command = [*BHNBENCH, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    assert code is None or done.returncode == code, done.stderr
    return done.stdout


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [*BHNBENCH, *map(str, arguments)]
    return subprocess.Popen(
        command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )


def write(folder: Path, text: str, name: str = "sweep.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def demo(folder: Path, n_steps: int = 0, seconds: float = 0.0) -> Path:
    return write(folder, DEMO.format(n_steps=n_steps, seconds=seconds))


def home() -> Path:
    return Path(os.environ["BHNBENCH_HOME"])


def executions(folder: Path) -> int:
    log = folder / "executions.log"
    return len(log.read_text().splitlines()) if log.exists() else 0


def wait_for_executions(folder: Path, count: int, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 90
    while executions(folder) < count:
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < until, "the sweep does not get on"
        time.sleep(0.05)


def scores(board: str) -> dict[tuple[str, str], Any]:
    """Test scores of every seed by task and method."""
    return {
        (task["label"], row["label"]): [(seed["seed"], seed["scores"]) for seed in row["seeds"]]
        for task in json.loads(board)["tasks"]
        for row in task["methods"]
    }
