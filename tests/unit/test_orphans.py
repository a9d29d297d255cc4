"""Runs that no sweep refers to, on every database."""

from __future__ import annotations

from pathlib import Path

import pytest
from bhnbench_doubles.ranked_sweeps import Bench, document, done
from sqlalchemy import func, select

from bhnbench.errors import LedgerError
from bhnbench.leaderboard.ranking import build_leaderboard
from bhnbench.leaderboard.tables import render
from bhnbench.ledger.database import open_engine
from bhnbench.ledger.ledger import Ledger
from bhnbench.ledger.models import Base, SweepRow, SweepStudyRow
from bhnbench.ledger.orphans import count_orphan_studies, remove_orphans
from bhnbench.sweep.document import read_sweep

pytestmark = pytest.mark.usefixtures("exam")


def fill(where: str, folder: Path, text: str) -> None:
    (folder / "sweep.yaml").write_text(text)
    with Ledger(where, create=True) as ledger:
        record = ledger.record_sweep(read_sweep(folder / "sweep.yaml"))
        Bench(ledger, record).run(lambda label, work: done(50 + work.spec.seed))


def drop_sweep(where: str, name: str) -> None:
    engine = open_engine(where, create=False)
    with engine.begin() as connection:
        ids = select(SweepRow.id).filter_by(name=name)
        places = SweepStudyRow.__table__.delete().where(SweepStudyRow.sweep_id.in_(ids))
        connection.execute(places)
        connection.execute(SweepRow.__table__.delete().where(SweepRow.name == name))
    engine.dispose()


def counts(where: str) -> dict[str, int]:
    engine = open_engine(where, create=False)
    with engine.connect() as connection:
        found = {
            name: connection.scalar(select(func.count()).select_from(table)) or 0
            for name, table in Base.metadata.tables.items()
        }
    engine.dispose()
    return found


def test_what_only_a_lost_sweep_used_goes_and_no_more(tmp_path: Path, ledger_address: str) -> None:
    searched = document("ab", 2, search="search: {sampler: random, trials: 3}\n")
    fill(ledger_address, tmp_path, searched)
    kept = counts(ledger_address)
    with Ledger(ledger_address) as ledger:
        board = render(build_leaderboard(ledger, ledger.sweeps()[0]), "json")
    other = document("abc", 3, search="search: {sampler: random, trials: 4}\n")
    fill(ledger_address, tmp_path, other.replace("finals", "lost").replace("random", "tpe"))
    assert remove_orphans(ledger_address, alone=True) == {
        "studies": 0, "runs": 0, "trials": 0, "bytes": 0,
    }  # fmt: skip
    both = counts(ledger_address)
    drop_sweep(ledger_address, "lost")
    assert count_orphan_studies(ledger_address) == 3
    dry = remove_orphans(ledger_address, alone=True, dry_run=True)
    assert counts(ledger_address)["runs"] == both["runs"]
    gone = remove_orphans(ledger_address, alone=True)
    assert gone | {"bytes": 0} == dry
    assert (gone["studies"], gone["trials"]) == (3, 12)
    after = counts(ledger_address)
    assert after["studies"] == kept["studies"]
    assert after["trials"] == kept["trials"]
    assert after["runs"] == both["runs"] - gone["runs"] >= kept["runs"]
    with Ledger(ledger_address) as ledger:
        assert render(build_leaderboard(ledger, ledger.sweeps()[0]), "json") == board
    again = remove_orphans(ledger_address, alone=True)
    assert not any(again.values())


def test_nothing_is_removed_under_a_driver(tmp_path: Path, ledger_address: str) -> None:
    fill(ledger_address, tmp_path, document("a", 2))
    drop_sweep(ledger_address, "finals")
    with Ledger(ledger_address) as ledger:
        ledger.join(alone=False)
        with pytest.raises(LedgerError, match=r"no driver may be at work .* but 1 of them are"):
            remove_orphans(ledger_address, alone=False)
        assert counts(ledger_address)["runs"] == 2
        ledger.leave()
    assert remove_orphans(ledger_address, alone=False)["runs"] == 2
    assert counts(ledger_address)["runs"] == 0
