"""Ledgers with many runs: what is counted is right, and what is asked is found by an index."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bhnbench_doubles.big_ledgers import Size, big_document, fill
from sqlalchemy import Engine, create_engine, event, text

from bhnbench.leaderboard.ranking import build_leaderboard
from bhnbench.ledger.ledger import Ledger
from bhnbench.ledger.records import SweepRecord
from bhnbench.selection import best_trial
from bhnbench.status import study_statuses, warned_runs
from bhnbench.sweep.document import read_sweep
from bhnbench.sweep.plan import plan_sweep

SIZE = Size(tasks=1, trials=20, seeds=2, small_sweeps=6, metrics=2, points=2)
MANY = replace(SIZE, small_sweeps=50)
LARGE = ("runs", "trials", "scores", "points")


@pytest.fixture
def address(ledger_address: str) -> str:
    """The URL of a ledger of a few finished sweeps, and one that is half done."""
    fill(ledger_address, SIZE, share=0.5)
    return ledger_address


@pytest.mark.parametrize("driven", [True, False])
def test_what_the_database_counts_is_what_there_is(address: str, driven: bool) -> None:
    stop_some(address)
    with Ledger(address, driven=driven) as ledger:
        for name, n_trials in (("small-3", 30), ("small-3", 7), ("big", 20)):
            check_tallies(ledger, sweep_of(ledger, name), n_trials)


def stop_some(address: str) -> None:
    """Some trials are under way, one has the score of another, and one the run of another."""
    engine = create_engine(address)
    with engine.begin() as connection:
        for change in (
            "UPDATE trials SET state = 'running', failure = NULL, value = NULL WHERE number = 5",
            "UPDATE runs SET state = 'running', failure = NULL, finished_at = NULL, "
            "fit_seconds = NULL, score_seconds = NULL "
            "WHERE id IN (SELECT run_id FROM trials WHERE number = 5)",
            "UPDATE trials SET state = 'done', failure = NULL, value = 2.0 WHERE number IN (3, 4)",
            "UPDATE trials SET run_id = (SELECT run_id FROM trials AS other "
            "WHERE other.study_id = trials.study_id AND other.number = 1) WHERE number = 2",
            "UPDATE studies SET driver_id = 99 WHERE id % 2 = 0",  # who is not seen any more
            "UPDATE runs SET driver_id = 99 WHERE id % 3 = 0",
        ):
            connection.execute(text(change))
    engine.dispose()


def sweep_of(ledger: Ledger, name: str) -> SweepRecord:
    sweep = ledger.find_sweep(name)
    assert sweep is not None
    return sweep


def check_tallies(ledger: Ledger, sweep: SweepRecord, n_trials: int) -> None:
    studies = [replace(study, n_trials=n_trials) for study in sweep.studies]
    statuses = study_statuses(ledger, studies, sweep.n_seeds)
    warned = warned_runs(ledger, studies, statuses)
    for study, status, warnings in zip(studies, statuses, warned, strict=True):
        trials = [t for t in ledger.trials(study.id or 0) if t.number < n_trials]
        runs = ledger.run_ids(trial.run_id for trial in trials)
        tally = status.search
        assert tally.ends == Counter((t.state, t.failure) for t in trials)
        assert tally.n_ended == sum(t.ended for t in trials)
        assert tally.n_settled == sum(t.settled for t in trials)
        assert tally.best == best_trial(trials, study.spec.direction)
        failed = [runs[t.run_id] for t in trials if t.state == "failed"]
        failed = [run for run in failed if run.state == "failed"]
        assert [(run.id, run.failure, run.message) for run in tally.failed] == [
            (run.id, run.failure, run.message) for run in failed
        ]
        assert tally.n_runs == len(runs) < len(trials)
        assert tally.seconds == pytest.approx(sum(run.cost.seconds for run in runs.values()))
        assert tally.started_at == min(run.started_at for run in runs.values() if run.started_at)
        ends = [run.finished_at for run in runs.values() if run.finished_at]
        assert max(ends) == tally.finished_at
        everything = [*runs.values(), *status.evaluations]
        expected = {run.id: list(run.warnings) for run in everything if run.warnings}
        assert {run.id: list(run.warnings) for run in warnings} == expected


def test_a_sweep_is_found_by_name_and_by_number(address: str) -> None:
    with Ledger(address) as ledger:
        last, named = ledger.find_sweep(), ledger.find_sweep("small-4")
        assert (last or named) == ledger.sweeps()[0]
        assert named is not None
        assert ledger.find_sweep(str(named.id)) == named
        unknown = ("small", f"0{named.id}", "9" * 30, "\u0663", "")
        assert [ledger.find_sweep(reference) for reference in unknown] == [None] * 5
        titles = [(title.id, title.name, title.tasks) for title in ledger.sweep_titles()]
        assert titles == [
            (s.id, s.name, list(dict.fromkeys(study.spec.labels[0] for study in s.studies)))
            for s in ledger.sweeps()
        ]


def test_no_question_about_a_sweep_reads_the_whole_ledger(
    ledger_address: str, tmp_path: Path
) -> None:
    """Of many sweeps one is asked about: its rows are to be found, not sought."""
    fill(ledger_address, MANY, share=0.5)
    path = tmp_path / "sweep.yaml"
    path.write_text(json.dumps(big_document(MANY)))
    document = read_sweep(path)
    with Ledger(ledger_address) as ledger:
        engine = ledger._engine
        with statements(engine) as seen:
            record = sweep_of(ledger, "small-3")
            board = build_leaderboard(ledger, record)
            warned_runs(ledger, record.studies, study_statuses(ledger, record.studies, 5))
            plan_sweep(document, ledger)
        assert [row.rank is not None for row in board.tables[0].rows] == [True] * 5
        asked = [statement for statement, _ in seen]
        assert all(any(f"FROM {table}" in one for one in asked) for table in ("runs", "scores"))
        for statement, parameters in seen:
            lines = explain(engine, statement, parameters)
            assert not re.search(rf"\b(SCAN|Seq Scan on) ({'|'.join(LARGE)})\b", lines), lines
        scan = explain(engine, "SELECT sum(value) FROM scores", ())
        assert re.search(r"\b(SCAN|Seq Scan on) scores\b", scan)  # what it would look like


def test_reports_are_read_together_as_one_by_one(address: str) -> None:
    with Ledger(address) as ledger:
        runs = range(95, 99)
        together = ledger.points_of([*runs, 10**6], "accuracy")
        alone = {run: [(n, m["accuracy"]) for n, m in ledger.points(run)] for run in runs}
        assert together == alone
        assert ledger.points_of(runs, "loss") == {}


def test_the_trials_that_a_run_serves_are_found_by_the_run(address: str) -> None:
    with Ledger(address) as ledger:
        study = sweep_of(ledger, "small-3").studies[0].id or 0
        trial = ledger.trials(study)[4]
        engine = ledger._engine
        with statements(engine) as seen:
            assert ledger.trials(study, trial.run_id) == [trial]
            assert ledger.trials(study + 1, trial.run_id) == []
        assert "ix_trials_run_id" in explain(engine, *seen[0])


class statements:
    """All that an engine executes in the block, with its parameters."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._seen: list[tuple[str, Any]] = []

    def _hear(
        self, connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any
    ) -> None:
        if statement.startswith("SELECT"):
            self._seen.append((statement, parameters))

    def __enter__(self) -> list[tuple[str, Any]]:
        event.listen(self._engine, "before_cursor_execute", self._hear)
        return self._seen

    def __exit__(self, *_: object) -> None:
        event.remove(self._engine, "before_cursor_execute", self._hear)


def explain(engine: Engine, statement: str, parameters: Any) -> str:
    """How the database goes about a statement."""
    word = "EXPLAIN QUERY PLAN" if engine.dialect.name == "sqlite" else "EXPLAIN"
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(f"{word} {statement}", parameters)
        return "\n".join(str(row[-1]) for row in rows)
