"""Whole sweeps by the command line: real Ray, real databases, real processes killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bhnbench_doubles.commands import (
    BHNBENCH,
    bhnbench,
    demo,
    executions,
    home,
    scores,
    start,
    wait_for_executions,
    write,
)  # fmt: skip

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def log_executions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The task `guess` writes a line there whenever it is executed."""
    monkeypatch.setenv("BHNBENCH_TEST_LOG", str(tmp_path / "executions.log"))


def test_a_sweep_a_second_one_and_one_that_shares_runs(tmp_path: Path) -> None:
    path = demo(tmp_path)
    first = bhnbench("sweep", path)
    assert executions(tmp_path) == 6 + 3 + 3
    assert "constant(x=0.1)" in first
    before = time.monotonic()
    again = bhnbench("sweep", path)
    assert time.monotonic() - before < 30
    assert again == first == bhnbench("leaderboard")
    assert executions(tmp_path) == 12
    # One method more and two trials more: only those are executed, and at most a new best.
    path.write_text(path.read_text().replace("[constant,", "[{name: constant, x: 0.2}, constant,"))
    plan = json.loads(bhnbench("plan", path, "--set", "search.trials=8", "--json"))
    assert plan["left"] == 3 + 2 + 3
    bhnbench("sweep", path, "--set", "search.trials=8")
    assert executions(tmp_path) in (12 + 3 + 2, 12 + 3 + 2 + 3)  # + 3: a new best was found
    status = json.loads(bhnbench("status", "--json"))
    assert status["left"] == 0
    assert not [study for study in status["studies"] if study["failures"]]


def test_a_killed_sweep_finishes_and_repeats_nothing(tmp_path: Path) -> None:
    """SIGKILL in the middle, twice; then the same numbers as a sweep left in peace."""
    path = demo(tmp_path, n_steps=5, seconds=0.1)
    calm = bhnbench("sweep", path, "--json", "--home", tmp_path / "calm")
    (tmp_path / "executions.log").unlink()
    for count in (3, 8):
        process = start("sweep", path)
        wait_for_executions(tmp_path, count, process)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=30)
        studies = json.loads(bhnbench("status", "--json"))["studies"]
        assert not any(s["search"]["running"] + s["evaluate"]["running"] for s in studies)
        assert {f["class"] for s in studies for f in s["failures"]} == {"interrupted"}
    assert len(list(home().glob("scratch-*"))) == 1
    killed_at = executions(tmp_path)
    wild = bhnbench("sweep", path, "--json")
    assert scores(wild) == scores(calm)  # bit for bit: JSON gives every digit
    slots = os.cpu_count() or 1
    assert 12 <= executions(tmp_path) <= 12 + 2 * slots  # at most what was under way is redone
    assert executions(tmp_path) > killed_at
    status = json.loads(bhnbench("status", "--json"))
    assert status["left"] == 0
    assert [s["search"]["done"] for s in status["studies"]] == [6, 0]
    assert not list(home().glob("scratch-*"))
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{os.environ['BHNBENCH_HOME']}/mlflow.db")
    (experiment,) = [e for e in client.search_experiments() if e.name != "Default"]
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    assert len(runs) == 2 + 12  # a parent per study, a child per trial and evaluation run
    assert {run.info.status for run in runs} <= {"FINISHED", "KILLED"}
    children = [run.data.tags["bhnbench.run"] for run in runs if "bhnbench.run" in run.data.tags]
    assert len(children) == len(set(children)) == 12


def test_control_c_stops_cleanly_and_says_how_to_go_on(tmp_path: Path) -> None:
    path = demo(tmp_path, n_steps=10, seconds=0.1)
    process = start("sweep", path)
    wait_for_executions(tmp_path, 4, process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to everybody in the foreground
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == ""
    assert f"go on with: bhnbench sweep {path}" in err
    assert "Traceback" not in err
    status = json.loads(bhnbench("status", "--json"))
    assert status["left"] > 0
    assert not any(s["search"]["running"] + s["evaluate"]["running"] for s in status["studies"])
    bhnbench("sweep", path)
    assert json.loads(bhnbench("status", "--json"))["left"] == 0


def test_two_homes_same_numbers(tmp_path: Path) -> None:
    """Real methods with fixed configurations give bit-identical scores."""
    path = write(
        tmp_path,
        """\
name: twice
tasks:
  - {name: digit_classification, epochs: 3}
  - {name: active_learning, n_rounds: 2, epochs: 5}
  - {name: toy_regression, epochs: 3}
methods:
  - {name: mc_dropout, label: dropout}
  - deep_ensemble
  - bayesian_hypernet
  - maximum_likelihood
evaluate: {seeds: 2}
""",
    )
    one, other = (
        scores(bhnbench("sweep", path, "--json", "--home", tmp_path / home))
        for home in ("one", "other")
    )
    assert one == other
    assert len(one) == 12
    assert all(found for seeds in one.values() for _, found in seeds)


def test_failures_are_told_and_the_others_go_on(tmp_path: Path) -> None:
    ways = ("raise", "diverge", "memory", "exit", "die", "unsupported")
    methods = "\n".join(f"  - {{name: failing, how: {how}, x: 0.5, label: {how}}}" for how in ways)
    mark = tmp_path / "mark"
    path = write(
        tmp_path,
        f"""\
name: failures
tasks: [guess]
methods:
  - constant
{methods}
  - {{name: failing, how: die_once, mark: {mark}, x: 0.5, label: die_once}}
evaluate: {{seeds: 2}}
""",
    )
    table = bhnbench("sweep", path, code=3)
    status = json.loads(bhnbench("status", "--json"))
    failures = {s["method"]: s["failures"] for s in status["studies"]}
    assert failures["constant"] == []
    classes = {name: {f["class"] for f in found} for name, found in failures.items() if found}
    assert classes == {
        "raise": {"error"},
        "diverge": {"diverged"},
        "memory": {"out_of_memory"},
        "exit": {"error"},
        "die": {"quarantined"},
        "unsupported": {"unsupported"},
    }
    messages = {name: found[0]["message"] for name, found in failures.items() if found}
    assert messages["raise"].startswith("RuntimeError: the plugin broke (methods.py:")
    assert messages["diverge"].startswith("loss must be finite, but is nan at step 3")
    assert messages["exit"].startswith("SystemExit: 3")
    assert messages["die"].startswith("3 workers died of it, so it is not tried again; the last: ")
    assert failures["die_once"] == []  # tried again at once
    for how in ways:
        assert how in table  # the gap is shown
    # What may pass is tried again; what would happen again is not.
    before = executions(tmp_path)
    bhnbench("sweep", path, code=3)
    assert executions(tmp_path) == before + 2 * (1 + 1 + 2)  # raise, exit; memory once more
    shown = bhnbench("show", failures["diverge"][0]["run"])
    assert "diverged: loss must be finite" in shown


def test_test_data_are_out_of_reach_of_the_search(tmp_path: Path) -> None:
    """The poisoned task has no finite score on test data; the search never notices."""
    text = "name: poison\ntasks: [poisoned]\nmethods: [constant]\n"
    text += "search: {sampler: random, trials: 4}\nevaluate: {seeds: 2}\n"
    bhnbench("sweep", write(tmp_path, text), code=3)
    (study,) = json.loads(bhnbench("status", "--json"))["studies"]
    assert study["search"] == {"planned": 4, "done": 4, "running": 0, "pruned": 0, "failed": 0}
    assert study["evaluate"]["failed"] == 2
    assert {failure["class"] for failure in study["failures"]} == {"diverged"}


def test_a_request_that_nobody_can_satisfy_is_refused_at_once(tmp_path: Path) -> None:
    command = [*BHNBENCH, "sweep", str(demo(tmp_path)), "--set", "resources.gpu=64"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    line = (
        "error: resources.gpu: a run must fit a node of the cluster, but asks for 64 and none has "
        "more than 0; lower it with --set resources.gpu=N"
    )
    assert line in done.stderr.splitlines()
    assert "Traceback" not in done.stderr
    assert not Path(os.environ["BHNBENCH_HOME"]).exists()  # nothing was written


def test_odd_returns_end_their_run_and_not_the_sweep(tmp_path: Path) -> None:
    ways = ("fine", "numpy", "object", "nested", "name", "message")
    tasks = "\n".join(f"  - {{name: odd, how: {how}, label: {how}}}" for how in ways)
    text = f"name: odd\ntasks:\n{tasks}\nmethods: [constant]\nevaluate: {{seeds: 1}}\n"
    board = json.loads(bhnbench("sweep", write(tmp_path, text), "--json", code=3))
    states = {task["label"]: task["methods"][0]["seeds"][0]["state"] for task in board["tasks"]}
    odd = dict.fromkeys(("object", "nested", "name", "message"), "failed")
    assert states == {"fine": "done", "numpy": "done"} | odd
    assert "0 sent" in bhnbench("sync")


# What `bhnbench` does, and says when Python and click are there: what comes before is not ours.
ENTRY = """\
from bhnbench.cli.main import main
print("ready", flush=True)
main(prog_name="bhnbench")
"""


@pytest.mark.parametrize("seconds", [0.05, 0.3, 0.5, 0.8, 1.2, 2.5, 4.0, 5.5, 7.0, 9.0])
def test_control_c_while_starting(tmp_path: Path, seconds: float) -> None:
    command = [sys.executable, "-c", ENTRY, "sweep", demo(tmp_path, n_steps=20, seconds=0.2)]
    process = subprocess.Popen(
        command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    # Python ends by the signal itself, which a shell reports as 130 too, where it caught Ctrl-C
    # in code made from a string (a dataclass being defined).
    assert process.returncode in (130, -signal.SIGINT), err
    assert "Traceback" not in err


def test_early_termination_and_more_trials(tmp_path: Path) -> None:
    path = demo(tmp_path, n_steps=9, seconds=0.02)
    early = "search.early_terminate={type: asha, min_iter: 1, eta: 3}"
    bhnbench("sweep", path, "--set", early, "--set", "search.trials=12")
    (searched, _) = json.loads(bhnbench("status", "--json"))["studies"]
    assert searched["search"]["pruned"] >= 1
    assert searched["search"]["done"] + searched["search"]["pruned"] == 12
    assert searched["evaluate"]["done"] == 3


def test_a_home_of_any_name_and_warnings_from_workers(tmp_path: Path) -> None:
    """Workers' warnings arrive; a path with characters that mean something in a URL works."""
    methods = "[constant, {name: suspect, label: odd}]"
    text = f"name: warned\ntasks: [guess]\nmethods: {methods}\nevaluate: {{seeds: 2}}\n"
    odd_home = tmp_path / "my home #1 (50%) ü"
    table = bhnbench("sweep", write(tmp_path, text), "--home", odd_home)
    assert "odd (!)" in table
    assert "constant (!)" not in table
    assert "odd: 2 of 2 evaluation runs, such as run " in table
    assert "samples 0 of fit " in table
    studies = json.loads(bhnbench("status", "--json", "--home", odd_home))["studies"]
    warned = {study["method"]: [run["seed"] for run in study["warnings"]] for study in studies}
    assert warned == {"constant": [], "odd": [1, 2]}


def test_one_sweep_at_a_time_in_a_home(tmp_path: Path) -> None:
    path = demo(tmp_path, n_steps=20, seconds=0.2)
    process = start("sweep", path)
    wait_for_executions(tmp_path, 1, process)
    done = subprocess.run(
        [*BHNBENCH, "sweep", str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert done.returncode == 1
    assert f"one sweep at a time, but process {process.pid} runs one here" in done.stderr


def test_the_ledger_may_be_postgresql(
    tmp_path: Path, ledger_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BHNBENCH_LEDGER", ledger_address)
    path = demo(tmp_path)
    first = bhnbench("sweep", path)
    assert bhnbench("sweep", path) == first
    assert executions(tmp_path) == 12


def test_a_sweep_finishes_without_mlflow_and_sync_repairs_it(tmp_path: Path) -> None:
    path = demo(tmp_path)
    database = Path(os.environ["BHNBENCH_HOME"]) / "mlflow.db"
    database.parent.mkdir()
    database.write_text("this is no database" * 1000)
    command = [*BHNBENCH, "sweep", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert "bhnbench sync" in done.stderr
    assert "Traceback" not in done.stderr
    refused = subprocess.run(
        [*BHNBENCH, "sync"], capture_output=True, text=True, timeout=120, check=False
    )
    assert refused.returncode == 1
    assert len(refused.stderr.splitlines()) == 1
    database.unlink()
    assert "14 sent, 0 there already" in bhnbench("sync")  # two studies, twelve runs
    assert "0 sent, 14 there already" in bhnbench("sync")
