"""`bhnbench run` tells how far it is, where somebody looks."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys

import pytest
from bhnbench_doubles.command_line import call
from rich.console import Console

from bhnbench.cli.live import RunProgress, shown

ERASED = "\x1b[1A\x1b[2K"  # up a line, and clear it


def test_without_a_terminal_it_is_silent() -> None:
    result = call("run", "guess", "constant", "--json")
    assert result.stderr == ""
    assert json.loads(result.stdout)["scores"]


def test_a_terminal_shows_the_run_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes it for a terminal
    result = call("run", "guess", "constant", "--set", "task.n_steps=3", "--json")
    assert "guess / constant: " in result.stderr
    assert ", step 3: closeness -" in result.stderr
    assert result.stderr.endswith(ERASED)  # the line is gone
    assert json.loads(result.stdout)["scores"]


def test_a_run_is_one_line_of_time_step_and_figures() -> None:
    progress = RunProgress("guess / constant")
    assert str(progress.line()) == "guess / constant: 0.0 s"
    progress.listen([(1, {"nll": 0.51239, "accuracy": 90.0}), (2, {"nll": 0.4})], lambda: None)
    assert str(progress.line()) == "guess / constant: 0.0 s, step 2: nll 0.4, accuracy 90"
    console = Console(width=30)
    ((segment,),) = console.render_lines(progress.line())
    assert segment.text == "guess / constant: 0.0 s, step…"


@pytest.mark.parametrize("terminal", [True, False])
def test_what_is_shown_is_taken_away_after_an_error(terminal: bool) -> None:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=80)
    with pytest.raises(KeyboardInterrupt), shown(console, lambda: "running"):
        raise KeyboardInterrupt
    assert ("running" in console.file.getvalue()) is terminal
    assert console.file.getvalue().endswith(ERASED if terminal else "")


@pytest.mark.slow
def test_ctrl_c_ends_it_without_a_word() -> None:
    command = [sys.executable, "-m", "bhnbench.cli", "run", "guess", "constant"]
    command += ["--set", "task.seconds=0.05", "--set", "task.n_steps=1000"]
    environment = os.environ | {"FORCE_COLOR": "1"}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, env=environment) as process:
        seen = b""
        while b"step" not in seen:
            seen += process.stderr.read1()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, b"")
    assert b"Traceback" not in err
    assert err.endswith(ERASED.encode())
