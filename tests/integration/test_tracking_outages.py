"""MLflow away, broken, killed or deleted: no sweep stops, and all of it comes back."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bhnbench_doubles.tracked_sweeps import FIXED, SEARCHED, Place, parent_of, statuses
from mlflow import MlflowClient

from bhnbench.errors import BhnbenchError
from bhnbench.tracking.addresses import reason, shown
from bhnbench.tracking.client import close_client, open_client
from bhnbench.tracking.sync import sync

pytestmark = pytest.mark.slow


def test_a_broken_database_stops_nothing_and_is_repaired(place: Place) -> None:
    sweep = place.record(SEARCHED)
    tracker = place.tracker(sweep)
    place.run(sweep, tracker, n_runs=2)
    while not place.shows(n_trials=2):  # and writes no more: SQLite would undo half a change
        time.sleep(0.1)
    place.store.write_bytes(b"garbage" * 4096)
    place.run(sweep, tracker)
    line = tracker.close()
    assert line is not None
    assert line.startswith(f"MLflow at {place.uri} does not show all of sweep 'demo': ")
    assert line.endswith("`bhnbench sync` sends what is missing")
    assert "\n" not in line
    with pytest.raises(BhnbenchError, match="MLflow at sqlite"):
        place.sync(sweep)
    place.store.unlink()
    assert place.sync(sweep) == (7, 0)
    assert place.sync(sweep) == (0, 7)


def test_what_passed_by_during_an_outage_is_there_in_the_end(place: Place) -> None:
    sweep = place.record(SEARCHED)
    aside = place.store.rename(place.folder / "aside.db")
    place.store.mkdir()
    tracker = place.tracker(sweep)
    place.run(sweep, tracker, n_runs=2)
    time.sleep(1)
    place.store.rmdir()
    aside.rename(place.store)
    place.run(sweep, tracker)
    assert tracker.close() is None
    assert len(place.runs()) == 7


@pytest.mark.parametrize(
    "uri",
    [
        "http://somebody:s3cret%2Fword@127.0.0.1:9",
        "postgresql+psycopg://somebody:s3cret%2Fword@127.0.0.1:9/mlflow",
        "postgresql+psycopg://somebody@127.0.0.1:9/mlflow?password=s3cret%2Fword",
    ],
)
def test_a_server_that_is_away_costs_seconds_and_no_secret(place: Place, uri: str) -> None:
    sweep = place.record(FIXED)
    tracker = place.tracker(sweep, uri)
    place.run(sweep, tracker)
    started = time.monotonic()
    line = tracker.close()
    assert time.monotonic() - started < 60
    assert line is not None
    assert "127.0.0.1:9" in line
    assert "s3cret" not in line
    with pytest.raises(BhnbenchError) as caught:
        sync(place.ledger, sweep, uri, place.artifacts)
    assert "s3cret" not in str(caught.value)


MAKE = """
import os, signal, sys
from sqlalchemy import Engine, event
from bhnbench.tracking.client import open_client

path, when = sys.argv[1:]
n_tables = 0

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

def before_move(name, arguments):
    if when == "move" and name == "os.rename" and str(arguments[1]) == path:
        kill()

@event.listens_for(Engine, "after_cursor_execute")
def after_statement(connection, cursor, statement, *rest):
    global n_tables
    n_tables += statement.lstrip().startswith("CREATE TABLE")
    if when == "tables" and n_tables == 40:
        kill()

sys.addaudithook(before_move)
open_client(f"sqlite:///{path}")
"""


def test_a_home_is_usable_after_a_kill_while_mlflow_made_its_database(place: Place) -> None:
    place.store.unlink()
    for when in ("tables", "move"):
        made = subprocess.run([sys.executable, "-c", MAKE, place.store, when], check=False)
        assert made.returncode == -signal.SIGKILL
        assert not place.store.exists()
    left = sorted(place.folder.glob("mlflow.db.part-*"), key=lambda path: path.stat().st_mtime)
    assert len(left) == 2
    half = left[0] / place.store.name
    with pytest.raises(Exception, match="already exists"):  # what a home is kept from
        MlflowClient(tracking_uri=f"sqlite:///{half}").search_experiments()
    close_client(f"sqlite:///{half}")
    yesterday = time.time() - 86400
    os.utime(left[0], (yesterday, yesterday))
    sweep = place.record(FIXED)
    tracker = place.tracker(sweep)
    place.run(sweep, tracker)
    assert tracker.close() is None
    assert statuses(place.runs("fixed")) == {"FINISHED": 3}
    remains = list(place.folder.glob("mlflow.db.part-*"))
    assert remains == [left[1]]  # its maker might still be at work
    os.utime(left[1], (yesterday, yesterday))
    assert place.sync(sweep) == (0, 3)
    assert not list(place.folder.glob("mlflow.db.part-*"))


def test_who_makes_the_database_last_does_not_take_it_from_the_first(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "mlflow.db"
    first = tmp_path / "first.db"
    shutil.copy(empty_store, first)

    def make(uri: str) -> None:  # as `close_client` is called, the other one is done
        close_client(uri)
        first.replace(store)

    monkeypatch.setattr("bhnbench.tracking.client.close_client", make)
    inode = first.stat().st_ino
    open_client(f"sqlite:///{store}")
    monkeypatch.undo()
    close_client(f"sqlite:///{store}")
    assert store.stat().st_ino == inode


def test_a_deleted_database_is_rebuilt(place: Place) -> None:
    sweep = place.record(SEARCHED)
    tracker = place.tracker(sweep)
    place.run(sweep, tracker)
    assert tracker.close() is None
    before = place.picture()
    place.store.unlink()
    assert place.sync(sweep) == (7, 0)
    assert place.picture() == before


def test_leftovers_of_a_killed_driver_are_adopted(place: Place) -> None:
    sweep = place.record(SEARCHED)
    place.run(sweep)
    place.sync(sweep)
    before = place.picture()
    client = open_client(place.uri)
    runs = {run.info.run_name: run for run in place.runs()}
    client = open_client(place.uri)
    half, whole, parent = (
        runs[name] for name in ("constant trial 0", "constant trial 1", "constant on guess")
    )
    client.delete_tag(half.info.run_id, "bhnbench.state")  # killed before the tags came
    client.update_run(half.info.run_id, status="RUNNING")
    client.update_run(parent.info.run_id, status="RUNNING")
    tags = {k: v for k, v in whole.data.tags.items() if k != "bhnbench.state"}
    client.create_run(whole.info.experiment_id, tags=tags)  # killed after creation, sent again
    close_client(place.uri)
    assert place.sync(sweep) == (2, 5)
    assert place.picture() == before
    assert place.sync(sweep) == (0, 7)


def test_what_was_deleted_in_the_ui_comes_back(place: Place) -> None:
    sweep = place.record(SEARCHED)
    place.run(sweep)
    place.sync(sweep)
    before = place.picture()
    (parent,) = [run for run in place.runs() if parent_of(run) is None]
    client = open_client(place.uri)
    client.delete_run(parent.info.run_id)
    close_client(place.uri)
    place.sync(sweep)
    assert place.picture() == before
    client = open_client(place.uri)
    client.delete_experiment(parent.info.experiment_id)
    close_client(place.uri)
    place.sync(sweep)  # the first parent comes back with the experiment: one of the two must go
    assert place.picture() == before
    assert place.sync(sweep) == (0, 7)


def test_what_is_said_of_an_address_holds_no_secret() -> None:
    assert shown("databricks") == "databricks"
    assert shown("https://u:pass@host/x?token=abcdef") == "https://u:***@host/x"
    error = RuntimeError("cannot reach https://u:pass@host/x?token=abcdef (pass, abcdef)\nmore")
    told = reason(error, "https://u:pass@host/x?token=abcdef")
    assert told == "cannot reach https://***@host/x (***, ***)"
    assert reason(ValueError(), "databricks") == "ValueError"
