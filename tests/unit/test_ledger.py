"""The ledger's verbs, on every database."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import create_engine, text

from bhnbench.contract import Outcome
from bhnbench.errors import LedgerError
from bhnbench.ledger.database import MIGRATIONS, SCHEMA
from bhnbench.ledger.ledger import Ledger
from bhnbench.ledger.models import Base
from bhnbench.ledger.records import SweepRecord, TrialRef
from bhnbench.runs import Cost, RunResult
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
        cost=Cost(1.5, 0.5, 100.0),
        provenance={"packages": {"torch": "2"}},
    )
    ledger.finish_run(spec, result, trial, -0.25)
    run = ledger.runs([spec.key])[spec.key]
    assert (run.state, run.scores, run.cost) == ("done", {"closeness": -0.25}, Cost(1.5, 0.5, 100))
    assert run.spec == spec
    assert run.provenance == {"packages": {"torch": "2"}}
    assert run.started_at is not None
    assert run.finished_at is not None
    assert run.started_at.utcoffset() is not None
    assert ledger.points(run.id) == [(1, {"closeness": -1.0}), (2, {"closeness": -0.5})]
    assert ledger.tables(run.id) == {"curve": {"n": [0, 1, 2], "value": [1.0, None, 3.0]}}
    (kept,) = ledger.trials(study.id or 0)
    assert (kept.state, kept.value, kept.last_step) == ("done", -0.25, 2)
    assert list(ledger.mean_seconds().values()) == [2.0]
    assert [found.id for found in ledger.find_runs(run.key[:8])] == [run.id]
    ledger.close()


def test_a_failure_leaves_no_score(ledger_address: str, sweep: Sweep) -> None:
    ledger, record = open_with(ledger_address, sweep)
    spec = record.studies[0].spec.run({}, "evaluate", 1)
    ledger.start_run(spec, None)
    ledger.finish_run(spec, RunResult("failed", failure="error", message="x" * 5000))
    run = ledger.runs([spec.key])[spec.key]
    assert (run.state, run.failure, run.scores, len(run.message)) == ("failed", "error", {}, 2000)
    assert not run.settled
    ledger.start_run(spec, None)
    assert ledger.runs([spec.key])[spec.key].attempts == 2
    ledger.close()


def test_runs_of_a_dead_driver_are_released(ledger_address: str, sweep: Sweep) -> None:
    ledger, record = open_with(ledger_address, sweep)
    spec = record.studies[0].spec.run({}, "evaluate", 1)
    ledger.start_run(spec, None)
    assert ledger.release_runs() == 1
    assert ledger.release_runs() == 0
    assert ledger.runs([spec.key])[spec.key].failure == "interrupted"
    ledger.close()


def test_a_sweep_recorded_twice_is_one(ledger_address: str, sweep: Sweep) -> None:
    ledger, record = open_with(ledger_address, sweep)
    again = ledger.record_sweep(sweep)
    assert again.id == record.id
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
