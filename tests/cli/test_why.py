"""`bhnbench why`: the story of a run, from the journal and the ledger."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from bhnbench_doubles.command_line import call

from bhnbench.journal import Journal
from bhnbench.ledger.ledger import Ledger
from bhnbench.ledger.records import RunRecord

STUDY = "guess / constant"


class Driver:
    """Writes what a driver of that name would."""

    def __init__(self, home: Path, name: str, **sweep: object) -> None:
        self._journal = Journal(home / "journal", driver=name, **sweep)

    def __call__(self, event: str, run: RunRecord | None = None, **fields: object) -> None:
        self._journal.write(event, run.key if run else None, **fields)
        assert self._journal.close() is None


@pytest.fixture
def ledger(home: Path) -> Iterator[Ledger]:
    with Ledger(f"sqlite:///{home / 'ledger.db'}") as ledger:
        yield ledger


def run_of(ledger: Ledger, phase: str, state: str) -> RunRecord:
    runs = ledger.run_ids(range(1, 100)).values()
    return next(run for run in runs if (run.spec.phase, run.state) == (phase, state))


def story(run: RunRecord) -> list[str]:
    """What is told, without times."""
    content = json.loads(call("why", run.key[:10], "--json").output)
    assert content["source"] == "journal"
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ", line) for line in content["story"])
    return [line[21:] for line in content["story"]]


def test_a_run_that_ran_out_of_memory_and_was_tried_again(home: Path, ledger: Ledger) -> None:
    run, other = run_of(ledger, "search", "done"), run_of(ledger, "evaluate", "done")
    tell = Driver(home, "lab:4711", sweep="demo", sweep_id=1)
    tell("sweep_started", resumed=False)
    tell("planned", study=STUDY, trials=3, seeds=2)
    tell("planned", study="guess / another", trials=3, seeds=2)
    alone = {"cpu": 1, "gpu": 0.0, "memory": 0.0}
    tell("started", run, study=STUDY, trial=0, attempt=1, host="node-1", resources=alone)
    tell("started", other, study=STUDY, attempt=1)
    memory = {"cpu": 1, "memory": 2}
    more = {"cpu": 1, "memory": 4}
    lost = {"failure": "out_of_memory", "message": "the worker died"}
    tell("retried", run, **lost, attempt=2, resources=more, before=memory)
    tell("started", run, study=STUDY, trial=0, attempt=2, host="node-2", resources=more)
    tell("done", run, seconds=12.3, host="node-2", device="cuda")
    tell("sweep_ended", how="finished")
    assert story(run) == [
        "sweep demo (1) started by driver lab:4711",
        "planned guess / constant: 3 trials and 2 seeds",
        "started as trial 0 of guess / constant on node-1",
        "failed (out_of_memory: the worker died), "
        "to be tried again with 4 GiB instead of 2 GiB (2x)",
        "started as trial 0 of guess / constant on node-2, attempt 2, with 1 cpu, 4 GiB",
        "done in 12 s on node-2 (cuda)",
    ]
    output = call("why", run.id).output
    assert f"run {run.id}  {run.key}" in output
    assert "constant on guess, phase search, seed 0\n" in output
    assert "serves trial 0 of guess / constant in sweep demo (1)\n" in output
    assert "It is done: a sweep that asks for it takes this result" in output


def test_a_run_whose_sweep_was_interrupted_whose_driver_died_and_that_was_late(
    home: Path, ledger: Ledger
) -> None:
    run = run_of(ledger, "evaluate", "done")
    first = Driver(home, "lab:1", sweep="demo", sweep_id=1)
    first("sweep_started", resumed=False)
    first("started", run, study=STUDY, attempt=1)
    first("sweep_ended", how="interrupted")
    second = Driver(home, "lab:2", sweep="demo", sweep_id=1)
    second("sweep_started", resumed=True)
    second("started", run, study=STUDY, attempt=2)
    third = Driver(home, "lab:3", sweep="other", sweep_id=2)
    third("sweep_started", resumed=False)
    for _ in range(3):  # it looks again and again
        third("waiting", run, source="lab:2")
    third("taken_over", run, source="lab:2")
    third("started", run, study=STUDY, attempt=3)
    third("refused", run, reason="it came after another driver had taken the run over")
    third("done", run, seconds=5)
    fourth = Driver(home, "lab:4", sweep="last", sweep_id=3)
    fourth("sweep_started", resumed=False)
    fourth("cached", run, study=STUDY, state="done", source="sweep other")
    assert story(run) == [
        "sweep demo (1) started by driver lab:1",
        "started as an evaluation of guess / constant",
        "sweep demo (1) ended while it was under way (interrupted)",
        "sweep demo (1) resumed by driver lab:2",
        "started as an evaluation of guess / constant, attempt 2",
        "its driver lab:2 left no word: killed, or its machine went down",
        "sweep other (2) started by driver lab:3",
        "sweep other (2) waits for it: lab:2 has it under way",
        "taken over by driver lab:3 from lab:2",
        "started as an evaluation of guess / constant, attempt 3",
        "a late result was refused: it came after another driver had taken the run over",
        "done in 5.0 s",
        "sweep last (3) started by driver lab:4",
        "sweep last (3) asked for it as an evaluation of guess / constant: "
        "done already by sweep other, so it was not run again",
    ]
    assert (
        "serves seed 1 of guess / constant(x=0.1) in sweep demo (1)\n"
        in call("why", run.id).output
    )


def test_a_run_that_was_stopped_early_and_one_that_kills_its_workers(
    home: Path, ledger: Ledger
) -> None:
    run = run_of(ledger, "evaluate", "failed")
    tell = Driver(home, "lab:1", sweep="demo", sweep_id=1)
    tell("started", run, study="guess / failing", trial=2, attempt=1)
    tell("pruned", run, study="guess / failing", trial=2, rung=4, value=0.512345678, cutoff=0.6)
    tell("started", run, study="guess / failing", trial=2, attempt=2)
    tell("failed", run, failure="error", message="the worker died", seconds=12)
    tell("quarantined", run, reason="it has killed its worker 3 times")
    tell("promoted", run, to="a newer bhnbench")
    assert story(run) == [
        "started as trial 2 of guess / failing",
        "stopped early at step 4: its value there was 0.512346, to go on it needed 0.6",
        "started as trial 2 of guess / failing, attempt 2",
        "failed after 12 s (error: the worker died)",
        "quarantined, so not tried again: it has killed its worker 3 times",
        "promoted: to a newer bhnbench",
    ]
    output = call("why", run.id).output
    assert "It failed for good: diverged would happen again, so it is not tried again." in output


def test_where_the_journal_is_silent_the_ledger_speaks(home: Path, ledger: Ledger) -> None:
    run, failed = run_of(ledger, "search", "done"), run_of(ledger, "evaluate", "failed")
    output = call("why", run.id).output
    assert f"The journal in {home / 'journal'} does not tell of it" in output
    assert re.search(r"\d\d:\d\d:\d\d  started\n\S+ \S+  done in 2\.0 s\n", output)
    assert re.search(
        r"  failed \(diverged: loss is nan at step 3\)\n", call("why", failed.id).output
    )
    content = json.loads(call("why", run.id, "--json").output)
    assert content["source"] == "ledger"
    assert content["serves"] == ["trial 0 of guess / constant in sweep demo (1)"]
    nothing = call("why", "9999")
    assert nothing.exit_code == 1
    assert "no run '9999' in the ledger" in nothing.output
