"""`bhnbench gc`: what goes, what stays, and when it refuses."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from bhnbench_doubles.command_line import call
from sqlalchemy import create_engine, text

from bhnbench.garbage import JOURNAL_DAYS
from bhnbench.home import Home
from bhnbench.journal import FILE, N_FILES
from bhnbench.ledger.ledger import Ledger
from bhnbench.ledger.records import RunRecord


def put(path: Path, n_bytes: int = 1000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * n_bytes)
    return path


def age(path: Path, days: float) -> Path:
    then = time.time() - days * 24 * 3600
    os.utime(path, (then, then))
    return path


def run_in(home: Path, **state: str) -> RunRecord:
    """A run in that state, whatever became of it before."""
    with Ledger(f"sqlite:///{home / 'ledger.db'}") as ledger:
        key = ledger.run_ids([len(state)])[len(state)].key
        engine = create_engine(f"sqlite:///{home / 'ledger.db'}")
        change = ", ".join(f"{name} = :{name}" for name in state)
        with engine.begin() as connection:
            query = text(f"UPDATE runs SET {change} WHERE id = {len(state)}")
            connection.execute(query, state)
        engine.dispose()
        return ledger.runs([key])[key]


@pytest.fixture
def littered(home: Path) -> tuple[list[Path], list[Path]]:
    """A home with what should go, and with what should stay."""
    checkpoints, journal = home / "checkpoints", home / "journal"
    with Ledger(f"sqlite:///{home / 'ledger.db'}") as ledger:
        keys = [run.key for run in ledger.run_ids(range(1, 100)).values()]
    interrupted = run_in(home, state="failed", failure="interrupted")
    left = run_in(home, state="running")
    others = [key for key in keys if key not in (interrupted.key, left.key)]
    go = [
        put(checkpoints / f"{others[0]}.pt", 5000),  # done
        put(checkpoints / f"{'0' * 64}.pt"),  # unknown
        put(checkpoints / f"{interrupted.key}.pt.k3x9"),  # a save that was cut short
        put(home / "scratch-abc" / "trial" / "result.json").parents[1],
        put(home / "mlflow.db.part-1" / "mlflow.db").parent,
        put(home / "figures" / "demo-7" / "curve.png").parent,
        put(home / "figures" / "gone-1" / "curve.png").parent,
        put(journal / f"{FILE}.{N_FILES}"),
        age(put(journal / f"{FILE}.2"), JOURNAL_DAYS + 1),
    ]
    stay = [
        put(checkpoints / f"{interrupted.key}.pt"),
        put(checkpoints / f"{left.key}.pt"),  # its driver died; the next one goes on from it
        put(checkpoints / "notes.txt"),
        put(home / "figures" / "demo-1" / "curve.png").parent,
        put(home / "figures" / "for-the-paper" / "curve.png").parent,
        age(put(journal / FILE), JOURNAL_DAYS + 1),
        put(journal / f"{FILE}.1"),
        put(home / "mine" / "scratch-pad"),
        home / "ledger.db",
    ]
    elsewhere = put(home.parent / "elsewhere" / "precious")
    (home / "scratch-link").symlink_to(elsewhere.parent)
    return go, [*stay, elsewhere, home / "scratch-link"]


def test_what_nothing_refers_to_goes_and_the_rest_stays(
    home: Path, littered: tuple[list[Path], list[Path]]
) -> None:
    go, stay = littered
    dry = call("gc", "--dry-run")
    assert dry.exit_code == 0
    assert (
        "3 checkpoints of runs that ended, or that the ledger does not know: 6.8 KiB" in dry.output
    )
    assert f"  checkpoints/{'0' * 64}.pt  1.0 KiB\n" in dry.output
    assert f"would free 12.7 KiB in {home}\n" in dry.output
    assert all(path.exists() for path in go + stay)
    content = json.loads(call("gc", "--json").output)
    assert sorted(one["path"] for one in content["removed"]) == sorted(map(str, go))
    assert content["bytes"] == 5000 + 8 * 1000
    assert not any(path.exists() for path in go)
    assert all(path.exists() for path in stay)
    assert call("gc").output == "nothing to remove\n"


def test_it_refuses_while_a_driver_is_at_work(
    home: Path, littered: tuple[list[Path], list[Path]]
) -> None:
    with Home(home).locked():
        refused = call("gc", "--orphans")
    assert refused.exit_code == 1
    assert "one sweep at a time" in refused.output
    assert all(path.exists() for path in littered[0])


def test_it_refuses_without_a_ledger(tmp_path: Path) -> None:
    """All would be unknown to it, and a forgotten BHNBENCH_LEDGER would cost hours."""
    nowhere = call("gc", "--home", tmp_path / "nowhere")
    assert (nowhere.exit_code, (tmp_path / "nowhere").exists()) == (1, False)
    assert "there is no home; name one with --home" in nowhere.output
    checkpoint = put(tmp_path / "home" / "checkpoints" / f"{'0' * 64}.pt")
    refused = call("gc", "--home", tmp_path / "home")
    assert refused.exit_code == 1
    assert "there is no ledger yet" in refused.output
    assert checkpoint.exists()


def test_runs_of_no_sweep_go_when_asked(home: Path) -> None:
    board = call("leaderboard").output
    engine = create_engine(f"sqlite:///{home / 'ledger.db'}")
    with engine.begin() as connection:  # as when a method's version changed
        connection.execute(text("DELETE FROM sweep_studies WHERE method_label LIKE 'failing%'"))
    engine.dispose()
    board = call("leaderboard").output
    assert call("gc").output.startswith("1 study that no sweep refers to stay")
    dry = json.loads(call("gc", "--orphans", "--dry-run", "--json").output)
    assert dry["ledger"] == {"studies": 1, "runs": 2, "trials": 0, "bytes": 0}
    told = call("gc", "--orphans").output
    assert "1 study, 0 trials and 2 runs that no sweep refers to" in told
    assert call("gc", "--orphans").output == "nothing to remove\n"
    assert call("leaderboard").output == board
