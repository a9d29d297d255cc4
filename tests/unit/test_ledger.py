"""The ledger's verbs, on every database."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Connection, create_engine, inspect, text

from bhnbench.contract import Outcome
from bhnbench.errors import LedgerError, NoLedgerError
from bhnbench.ledger.database import MIGRATIONS, SCHEMA
from bhnbench.ledger.ledger import Ledger
from bhnbench.ledger.models import Base
from bhnbench.ledger.records import SweepRecord, TrialRef
from bhnbench.runs import Cost, RunResult
from bhnbench.specs import digest
from bhnbench.status import study_statuses
from bhnbench.sweep.document import Sweep, read_sweep

DOCUMENT = """\
name: demo
tasks: [guess]
methods: [constant, {name: constant, x: 0.1}]
search: {sampler: random, trials: 3}
evaluate: {seeds: 2}
"""


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    (tmp_path / "sweep.yaml").write_text(DOCUMENT)
    return read_sweep(tmp_path / "sweep.yaml")


def open_with(address: str, sweep: Sweep) -> tuple[Ledger, SweepRecord]:
    ledger = Ledger(address, create=True)
    return ledger, ledger.record_sweep(sweep)


def test_a_run_lands_whole(ledger_address: str, sweep: Sweep) -> None:
    ledger, record = open_with(ledger_address, sweep)
    study = record.studies[0]
    trial = TrialRef(study.id or 0, 0, {"x": 0.5})
    spec = study.spec.search_run({"x": 0.5})
    ledger.start_run(spec, trial)
    assert ledger.runs([spec.key])[spec.key].state == "running"
    table = {"n": np.arange(3), "value": np.array([1.0, np.nan, 3.0])}
    result = RunResult(
        "done",
        outcome=Outcome({"closeness": -0.25}, {"curve": table}),
        points=[(1, {"closeness": -1.0, "loss": float("inf")}), (2, {"closeness": -0.5})],
        warnings=("the posterior has collapsed", "it is nowhere"),
        cost=Cost(1.5, 0.5, 100.0),
        provenance={"packages": {"torch": "2"}},
    )
    ledger.finish_run(spec, result, trial, -0.25)
    run = ledger.runs([spec.key])[spec.key]
    assert (run.state, run.scores, run.cost) == ("done", {"closeness": -0.25}, Cost(1.5, 0.5, 100))
    assert run.spec == spec
    assert run.warnings == ["the posterior has collapsed", "it is nowhere"]
    assert run.provenance == {"packages": {"torch": "2"}}
    assert run.started_at is not None
    assert run.finished_at is not None
    assert run.started_at.utcoffset() is not None
    assert ledger.points(run.id) == [(1, {"closeness": -1.0}), (2, {"closeness": -0.5})]
    assert ledger.tables(run.id) == {"curve": {"n": [0, 1, 2], "value": [1.0, None, 3.0]}}
    (kept,) = ledger.trials(study.id or 0)
    assert (kept.state, kept.value, kept.last_step) == ("done", -0.25, 2)
    task = digest(spec.task.identity)
    assert ledger.mean_seconds([task]) == {(task, "constant"): 2.0}
    assert ledger.mean_seconds(["0" * 64]) == {}
    assert [found.id for found in ledger.find_runs(run.key[:8])] == [run.id]
    ledger.close()


def test_a_failure_leaves_no_score(ledger_address: str, sweep: Sweep) -> None:
    ledger, record = open_with(ledger_address, sweep)
    spec = record.studies[0].spec.run({}, "evaluate", 1)
    ledger.start_run(spec, None)
    result = RunResult("failed", failure="error", message="x" * 5000, warnings=["suspect"])
    ledger.finish_run(spec, result)
    run = ledger.runs([spec.key])[spec.key]
    assert (run.state, run.failure, run.scores, len(run.message)) == ("failed", "error", {}, 2000)
    assert (run.settled, run.warnings) == (False, ["suspect"])
    ledger.start_run(spec, None)
    run = ledger.runs([spec.key])[spec.key]
    assert (run.attempts, run.warnings) == (2, [])
    ledger.close()


def test_runs_of_a_dead_driver_are_released(ledger_address: str, sweep: Sweep) -> None:
    ledger, record = open_with(ledger_address, sweep)
    spec = record.studies[0].spec.run({}, "evaluate", 1)
    ledger.start_run(spec, None)
    assert ledger.release_runs() == 1
    assert ledger.release_runs() == 0
    assert ledger.runs([spec.key])[spec.key].failure == "interrupted"
    ledger.close()


def test_without_a_driver_what_was_left_running_reads_as_the_next_one_will_write_it(
    ledger_address: str, sweep: Sweep
) -> None:
    ledger, record = open_with(ledger_address, sweep)
    study = record.studies[0]
    study_id = study.id or 0
    specs = study.spec.search_run({"x": 0.5}), study.spec.run({}, "evaluate", 1)
    ledger.start_run(specs[0], TrialRef(study_id, 0, {"x": 0.5}))
    ledger.start_run(specs[1], None)
    ledger.finish_run(specs[1], RunResult("done"))

    def states(ledger: Ledger) -> list[object]:
        runs = ledger.runs(spec.key for spec in specs)
        ids = ledger.run_ids(run.id for run in runs.values())
        in_order = [runs[spec.key] for spec in specs]
        found = [ledger.find_runs(run.key)[0] for run in in_order]
        seen = [*in_order, *(ids[run.id] for run in in_order), *found]
        trials = [(trial.state, trial.failure) for trial in ledger.trials(study_id)]
        return [*((run.state, run.failure, run.message) for run in seen), *trials]

    assert ("running", None, "") in states(ledger)
    with Ledger(ledger_address, driven=False) as alone:
        seen = states(alone)
    ledger.release_runs()
    assert seen == states(ledger)
    ledger.close()


def test_a_sweep_recorded_twice_is_one_and_knows_its_first_start(
    ledger_address: str, sweep: Sweep
) -> None:
    ledger, record = open_with(ledger_address, sweep)
    assert record.created_at == record.started_at
    again = ledger.record_sweep(sweep)
    assert again.id == record.id
    assert again.created_at == record.created_at < again.started_at
    assert [s.id for s in again.studies] == [s.id for s in record.studies]
    assert [s.spec for s in again.studies] == list(sweep.studies)
    assert [s.spec.labels for s in again.studies] == [s.labels for s in sweep.studies]
    assert [s.n_trials for s in again.studies] == [3, 0]
    assert len(ledger.sweeps()) == 1
    ledger.close()


def test_many_keys_are_looked_up(ledger_address: str, sweep: Sweep) -> None:
    ledger, record = open_with(ledger_address, sweep)
    spec = record.studies[0].spec.run({}, "evaluate", 1)
    ledger.start_run(spec, None)
    keys = [f"{number:064x}" for number in range(1200)]
    assert set(ledger.runs([*keys, spec.key])) == {spec.key}
    ledger.close()


def test_the_tables_are_those_of_the_migrations(ledger_address: str) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    Ledger(ledger_address, create=True).close()
    engine = create_engine(ledger_address)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_the_newest_migration_is_the_schema() -> None:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_current_head() == SCHEMA


OLD = Path(__file__).with_name("ledger-0001.sql")


def make_old(address: str) -> None:
    """A ledger as the first version of bhnbench left it."""
    statements = OLD.read_text().partition("\n")[2].split(";\n")
    engine = create_engine(address)
    with engine.begin() as connection:
        if engine.dialect.name != "sqlite":  # its own column types, then the same rows
            alembic("upgrade", connection)
            statements = [s for s in statements if s.startswith("INSERT")][1:]
        for statement in filter(str.strip, statements):
            connection.exec_driver_sql(statement.replace("%", "%%"))
    engine.dispose()


def alembic(verb: str, connection: Connection, version: str = "0001") -> None:
    """Alembic's ``upgrade`` or ``downgrade`` to a version."""
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS))
    getattr(command, verb)(config, version)


def check_old(ledger: Ledger) -> None:
    """Everything that the first version wrote is there."""
    (record,) = ledger.sweeps()
    assert record.name == "old"
    assert f"{record.created_at:%Y-%m}" == "2026-11"
    searched, failing = study_statuses(ledger, record.studies, record.n_seeds)
    assert (searched.n_left, failing.n_left) == (0, 0)
    trials = ledger.trials(record.studies[0].id or 0)
    assert [trial.value for trial in trials] == [-0.2091468745470047, -0.3072556915786117]
    assert searched.best == trials[0]
    assert [run.failure for run in failing.failures] == ["diverged", "diverged"]
    runs = ledger.run_ids(range(1, 100)).values()
    assert [run.warnings for run in runs] == [[]] * 6
    assert [step for step, _ in ledger.points(1)] == [1, 2]
    assert ledger.tables(1) == {"guesses": {"guess": [0.5]}}


def test_an_older_ledger_is_brought_up_to_date_by_a_sweep_alone(
    ledger_address: str, sweep: Sweep
) -> None:
    make_old(ledger_address)
    with pytest.raises(NoLedgerError, match=r"of schema 0001, here 0004; start a sweep to bring"):
        Ledger(ledger_address)
    with Ledger(ledger_address, create=True) as ledger:
        check_old(ledger)
        run = ledger.find_runs("1")[0]
        ledger.start_run(run.spec, None)
        ledger.finish_run(run.spec, RunResult("done", warnings=["suspect"]))
        assert ledger.find_runs("1")[0].warnings == ["suspect"]
    with Ledger(ledger_address):
        pass  # nothing is left to do


def test_a_ledger_goes_back_to_the_version_before(ledger_address: str) -> None:
    make_old(ledger_address)
    Ledger(ledger_address, create=True).close()
    engine = create_engine(ledger_address)
    with engine.begin() as connection:
        alembic("downgrade", connection)
        names = [column["name"] for column in inspect(connection).get_columns("runs")]
    engine.dispose()
    assert "warnings" not in names
    with Ledger(ledger_address, create=True) as ledger:
        check_old(ledger)


def test_the_indexes_of_large_ledgers_come_and_go_with_their_version(ledger_address: str) -> None:
    def names(connection: Connection) -> set[str]:
        tables = inspect(connection)
        found = [*tables.get_indexes("runs"), *tables.get_indexes("trials")]
        return {str(index["name"]) for index in found} & {"ix_runs_seconds", "ix_trials_best"}

    make_old(ledger_address)
    engine = create_engine(ledger_address)
    moves = ("upgrade", "0003", 0), ("upgrade", "0004", 2), ("downgrade", "0003", 0)
    for verb, version, n_indexes in moves:
        with engine.begin() as connection:
            alembic(verb, connection, version)
            assert len(names(connection)) == n_indexes
    engine.dispose()
    with Ledger(ledger_address, create=True) as ledger:
        check_old(ledger)


@pytest.mark.parametrize("statement", ["ALTER TABLE runs", "UPDATE alembic_version"])
def test_a_migration_that_is_killed_has_done_nothing(ledger_address: str, statement: str) -> None:
    make_old(ledger_address)
    code = f"""
import os, signal
from sqlalchemy import Engine, event
from bhnbench.ledger.ledger import Ledger

@event.listens_for(Engine, "after_cursor_execute")
def kill(connection, cursor, statement, *rest):
    if statement.startswith({statement!r}):
        os.kill(os.getpid(), signal.SIGKILL)

Ledger({ledger_address!r}, create=True)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    with pytest.raises(NoLedgerError, match="of schema 0001"):
        Ledger(ledger_address)
    with Ledger(ledger_address, create=True) as ledger:
        check_old(ledger)


def test_a_newer_ledger_is_refused(ledger_address: str) -> None:
    Ledger(ledger_address, create=True).close()
    engine = create_engine(ledger_address)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(LedgerError, match=r"a newer bhnbench wrote this ledger \(schema 9999"):
        Ledger(ledger_address, create=True)


def test_reading_needs_a_ledger_and_makes_none(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="there is no ledger yet"):
        Ledger(f"sqlite:///{tmp_path / 'home' / 'ledger.db'}")
    assert not (tmp_path / "home").exists()


def test_a_file_that_is_no_ledger_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_text("not a database, but long enough to be taken for one" * 100)
    with pytest.raises(LedgerError, match="cannot be opened: file is not a database"):
        Ledger(f"sqlite:///{path}", create=True)
    assert path.read_text().startswith("not a database")


@pytest.mark.parametrize(
    "address", ["postgresql+psycopg://me:hunter2@127.0.0.1:1/x", "nonsense:hunter2", "a://hunter2"]
)
def test_a_wrong_address_does_not_tell_the_password(address: str) -> None:
    with pytest.raises(LedgerError) as caught:
        Ledger(address, create=True)
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_opening_a_ledger_of_this_version_imports_no_alembic(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'ledger.db'}"
    Ledger(address, create=True).close()
    code = f"""
import sys
from bhnbench.ledger.ledger import Ledger
Ledger({address!r}).close()
print([m for m in ("alembic", "torch") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
