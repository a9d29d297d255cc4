"""Rows of a ledger on their way to another: all of them, once, and nothing lost."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bhnbench_doubles.ranked_sweeps import Bench, document, done
from sqlalchemy import select

from bhnbench.engine.coordinator import Work
from bhnbench.errors import LedgerError
from bhnbench.leaderboard.ranking import build_leaderboard
from bhnbench.leaderboard.tables import render
from bhnbench.ledger.database import open_engine
from bhnbench.ledger.export import export_rows
from bhnbench.ledger.ledger import Ledger
from bhnbench.ledger.merge import MergeReport, merge_rows
from bhnbench.ledger.models import Base
from bhnbench.ledger.portable import LEASES, MANIFEST, TABLES, columns, table
from bhnbench.ledger.records import RunRecord, SweepRecord
from bhnbench.runs import RunResult
from bhnbench.sweep.document import read_sweep

SEARCH = "search: {sampler: random, trials: 4}\n"
CRASHED = RunResult("failed", failure="error", message="no luck")
DIVERGED = RunResult("failed", failure="diverged", message="loss is nan")

pytestmark = pytest.mark.usefixtures("exam")


def address(folder: Path, name: str) -> str:
    return f"sqlite:///{folder / name}.db"


def points(label: str, work: Work) -> RunResult:
    """What a run finds: it depends on its configuration and seed alone."""
    x = float(work.spec.method.settings["x"] or 0)
    return replace(done(100 * x + work.spec.seed), points=[(1, {"points": x}), (4, {"points": x})])


def fill(
    where: str,
    folder: Path,
    answer: Callable[[str, Work], RunResult] = points,
    text: str = document("ab", 2, search=SEARCH),
) -> SweepRecord:
    """A ledger with a sweep that ran to its end."""
    (folder / "sweep.yaml").write_text(text)
    with Ledger(where, create=True) as ledger:
        record = ledger.record_sweep(read_sweep(folder / "sweep.yaml"))
        Bench(ledger, record).run(answer)
        ledger.finish_sweep(record.id)
    return record


def carry(source: str, target: str, folder: Path, **options: Any) -> MergeReport:
    export_rows(source, folder / "rows.zip", options.pop("sweep_ids", None))
    return merge_rows(target, folder / "rows.zip", **({"driven": False} | options))


def everything(where: str) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of all tables."""
    engine = open_engine(where, create=False)
    with engine.connect() as connection:
        found = {
            name: sorted(map(repr, connection.execute(select(own))))
            for name, own in Base.metadata.tables.items()
        }
    engine.dispose()
    return found


def boards(where: str) -> list[object]:
    """The leaderboards of all sweeps, but for the numbers of runs, which are a ledger's own."""

    def known(part: dict[str, object]) -> dict[str, object]:
        return {key: value for key, value in part.items() if key not in ("run_id", "run_ids")}

    with Ledger(where) as ledger:
        found = [render(build_leaderboard(ledger, sweep), "json") for sweep in ledger.sweeps()]
    return [json.loads(board, object_hook=known) for board in found]


def runs(where: str) -> dict[str, RunRecord]:
    with Ledger(where) as ledger:
        return {run.key: run for run in ledger.run_ids(range(1, 1000)).values()}


def state(run: RunRecord) -> tuple[object, ...]:
    return run.state, run.failure, run.message, run.scores, run.started_at, run.finished_at


def test_a_leaderboard_is_the_same_in_every_ledger_it_is_carried_to(
    tmp_path: Path, ledger_address: str
) -> None:
    first, third = address(tmp_path, "first"), address(tmp_path, "third")
    fill(first, tmp_path)
    report = carry(first, ledger_address, tmp_path)
    assert report.new["runs"] == 12
    assert report.new["trials"] == 8
    carry(ledger_address, third, tmp_path)
    assert boards(first) == boards(ledger_address) == boards(third)
    assert everything(first) == everything(third)
    ours, theirs = runs(first), runs(ledger_address)
    assert {key: state(run) for key, run in ours.items()} == {
        key: state(run) for key, run in theirs.items()
    }
    for key, run in ours.items():
        with Ledger(first) as a, Ledger(ledger_address) as b:
            assert a.points(run.id) == b.points(theirs[key].id)
            assert a.tables(run.id) == b.tables(theirs[key].id)


def test_merging_again_changes_nothing(tmp_path: Path, ledger_address: str) -> None:
    source = address(tmp_path, "source")
    fill(source, tmp_path)
    carry(source, ledger_address, tmp_path)
    before = everything(ledger_address)
    for _ in range(2):
        report = carry(source, ledger_address, tmp_path)
        assert not report.changed
        assert report.known == {"studies": 2, "runs": 12, "trials": 8, "sweeps": 1}
        assert everything(ledger_address) == before
    assert not carry(ledger_address, source, tmp_path).changed  # nor does the way back


def test_ids_of_two_ledgers_do_not_mix(tmp_path: Path, ledger_address: str) -> None:
    source = address(tmp_path, "source")
    fill(source, tmp_path)
    fill(ledger_address, tmp_path, text=document("abc", 3).replace("finals", "others"))
    kept = boards(ledger_address)
    report = carry(source, ledger_address, tmp_path)
    assert report.new["sweeps"] == 1
    assert boards(ledger_address) == kept + boards(source)


def test_done_replaces_failed_and_never_the_other_way(tmp_path: Path, ledger_address: str) -> None:
    def fails(label: str, work: Work) -> RunResult:
        if work.spec.phase == "evaluate":
            return CRASHED if label == "a" else DIVERGED
        return points(label, work)

    good = address(tmp_path, "good")
    fill(ledger_address, tmp_path, fails)
    fill(good, tmp_path)
    before = everything(good)
    assert not carry(ledger_address, good, tmp_path).changed
    assert everything(good) == before
    dry = carry(good, ledger_address, tmp_path, dry_run=True)
    assert {run.state for run in runs(ledger_address).values()} == {"done", "failed"}
    report = carry(good, ledger_address, tmp_path)
    assert report == dry
    assert (report.new["runs"], report.replaced) == (0, {"runs": 4})
    assert boards(ledger_address) == boards(good)
    assert {run.state for run in runs(ledger_address).values()} == {"done"}


def test_a_trial_that_failed_here_is_replaced_with_its_run(
    tmp_path: Path, ledger_address: str
) -> None:
    def stops(label: str, work: Work) -> RunResult:
        number = work.trial.number if work.trial else 0
        early = replace(points(label, work), outcome=None, state="pruned")
        return {1: CRASHED, 2: DIVERGED, 3: early}.get(number) or points(label, work)

    good = address(tmp_path, "good")
    fill(ledger_address, tmp_path, stops)
    fill(good, tmp_path)
    report = carry(good, ledger_address, tmp_path)
    assert report.replaced == {"runs": 6, "trials": 6}
    assert boards(ledger_address) == boards(good)
    with Ledger(ledger_address) as here, Ledger(good) as there:
        for study in (1, 2):
            trials = [[replace(t, run_id=0) for t in own.trials(study)] for own in (here, there)]
            assert trials[0] == trials[1]


def test_done_with_other_scores_is_told_and_left(tmp_path: Path, ledger_address: str) -> None:
    def another(label: str, work: Work) -> RunResult:
        found = points(label, work)
        return done(55) if (label, work.spec.seed) == ("b", 2) else found

    other = address(tmp_path, "other")
    fill(ledger_address, tmp_path)
    fill(other, tmp_path, another)
    before = everything(ledger_address)
    report = carry(other, ledger_address, tmp_path)
    assert not report.changed
    assert everything(ledger_address) == before
    found = {(d.metric, d.there) for d in report.differences}
    assert found == {("points", 55.0), ("errors", 45.0)}
    (run,) = {d.run_id for d in report.differences}
    here = {d.metric: d.here for d in report.differences}
    with Ledger(ledger_address) as ledger:
        assert ledger.run_ids([run])[run].scores == here


def test_where_two_searches_tried_other_configurations_those_here_stay(tmp_path: Path) -> None:
    here, there = address(tmp_path, "here"), address(tmp_path, "there")
    fill(here, tmp_path)
    fill(there, tmp_path)
    engine = open_engine(there, create=False)
    trials = table("trials")
    with engine.begin() as connection:  # as a search does whose runs ended in another order
        change = trials.update().where(trials.c.study_id == 1, trials.c.number == 3)
        connection.execute(change.values(configuration={"x": 0.123}))
    engine.dispose()
    report = carry(there, here, tmp_path)
    assert (report.other_trials, report.changed) == (1, False)


def test_what_is_under_way_travels_as_interrupted_and_is_not_disturbed(
    tmp_path: Path, ledger_address: str
) -> None:
    source = address(tmp_path, "source")
    record = fill(source, tmp_path)
    spec = record.studies[0].spec.run({}, "evaluate", 9)
    with Ledger(ledger_address, create=True) as ledger:
        ledger.join(alone=False)
        ledger.record_sweep(read_sweep(tmp_path / "sweep.yaml"))
        assert ledger.start_run(spec, None)
        assert ledger.claim_study(1)
        there = address(tmp_path, "there")
        carry(ledger_address, there, tmp_path)
        assert (runs(there)[spec.key].state, runs(there)[spec.key].failure) == (
            "failed",
            "interrupted",
        )
        with Ledger(source) as other:
            other.start_run(spec, None)
            other.finish_run(spec, done(1))
        report = carry(source, ledger_address, tmp_path, driven=True)
        assert report.under_way == {"runs": 1, "trials": 4}  # the study is searched here
        assert runs(ledger_address)[spec.key].state == "running"
        ledger.leave()
    report = carry(source, ledger_address, tmp_path, driven=True)
    assert report.under_way == {}
    assert (report.replaced["runs"], report.new["trials"]) == (1, 4)
    assert boards(ledger_address) == boards(source)


def test_reports_that_got_further_here_stay(tmp_path: Path) -> None:
    """A study that stopped a run early keeps the reports by which it did so."""
    here, there = address(tmp_path, "here"), address(tmp_path, "there")
    text = document("a", 1)
    far = replace(CRASHED, points=[(1, {"points": 1.0}), (9, {"points": 2.0})])
    fill(here, tmp_path, lambda *_: far, text)
    near = replace(DIVERGED, points=[(1, {"points": 3.0})])
    fill(there, tmp_path, lambda *_: near, text)
    assert carry(there, here, tmp_path).replaced == {"runs": 1}
    with Ledger(here) as ledger:
        assert ledger.run_ids([1])[1].failure == "diverged"
        assert [step for step, _ in ledger.points(1)] == [1, 9]


def test_of_a_sweep_goes_what_belongs_to_it(tmp_path: Path) -> None:
    source, target = address(tmp_path, "source"), address(tmp_path, "target")
    fill(source, tmp_path)
    text = document("cd", 3).replace("finals", "others").replace("x: 0.", "x: 0.9")
    other = fill(source, tmp_path, text=text)
    report = carry(source, target, tmp_path, sweep_ids=[other.id])
    assert report.new | {"tables": 0, "points": 0} == {
        "sweeps": 1,
        "sweep_studies": 2,
        "studies": 2,
        "runs": 6,
        "scores": 12,
        "tables": 0,
        "points": 0,
    }
    assert boards(target) == boards(source)[:1]
    with_search = carry(source, address(tmp_path, "third"), tmp_path, sweep_ids=[1])
    assert (with_search.new["runs"], with_search.new["trials"]) == (12, 8)
    assert boards(address(tmp_path, "third")) == boards(source)[1:]


def test_every_column_travels_but_leases() -> None:
    assert set(Base.metadata.tables) == {*TABLES, "drivers"}
    for name in TABLES:
        left = {column.name for column in table(name).columns} - {c.name for c in columns(name)}
        assert left <= set(LEASES)


def rewritten(file: Path, name: str, change: Callable[[Any], Any]) -> Path:
    """The file with one member changed."""
    with zipfile.ZipFile(file) as archive:
        members = {n: archive.read(n) for n in archive.namelist()}
    if name.endswith(".jsonl"):
        rows = [change(json.loads(line)) for line in members[name].splitlines()]
        members[name] = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    else:
        members[name] = json.dumps(change(json.loads(members[name]))).encode()
    with zipfile.ZipFile(file, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    fill(address(tmp_path, "source"), tmp_path, text=document("a", 2))
    export_rows(address(tmp_path, "source"), tmp_path / "rows.zip", None)
    return tmp_path / "rows.zip"


def test_an_older_file_gets_defaults_for_what_it_lacks(file: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        place = json.loads(archive.read(MANIFEST))["columns"]["runs"].index("warnings")

    def older(manifest: dict[str, Any]) -> dict[str, Any]:
        manifest["columns"]["runs"].remove("warnings")
        return manifest | {"schema": "0001"}

    rewritten(file, MANIFEST, older)
    rewritten(file, "runs.jsonl", lambda row: row[:place] + row[place + 1 :])
    target = address(tmp_path, "target")
    merge_rows(target, file, driven=False)
    assert [run.warnings for run in runs(target).values()] == [[], []]
    assert boards(target) == boards(address(tmp_path, "source"))


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        (MANIFEST, lambda m: m | {"kind": "notes"}, "its manifest is of something else"),
        (MANIFEST, lambda m: m | {"schema": "9999"}, "a newer bhnbench wrote it"),
        (MANIFEST, lambda m: m | {"format": 2}, "a newer bhnbench wrote it"),
        (MANIFEST, lambda m: [], "is no file of `bhnbench export`"),
        ("runs.jsonl", lambda row: row[:-1], "is no file of `bhnbench export`"),
        ("runs.jsonl", lambda row: {}, "is no file of `bhnbench export`"),
        ("scores.jsonl", lambda row: [row[0], row[1], None], "its rows do not fit together"),
        ("sweeps.jsonl", lambda row: [row[0], "../../up", *row[2:]], "a sweep's name must match"),
        ("studies.jsonl", lambda row: [row[0] + 7, *row[1:]], "is no file of `bhnbench export`"),
    ],
)
def test_a_file_that_is_none_changes_nothing(
    name: str, change: Callable[[Any], Any], told: str, file: Path, tmp_path: Path
) -> None:
    target = address(tmp_path, "target")
    fill(target, tmp_path, text=document("b", 1))
    before = everything(target)
    with pytest.raises(LedgerError, match=re.escape(told)):
        merge_rows(target, rewritten(file, name, change), driven=False)
    assert everything(target) == before


def test_a_damaged_file_is_told(file: Path, tmp_path: Path) -> None:
    target = address(tmp_path, "target")
    whole = file.read_bytes()
    for damaged in (b"", b"notes", whole[: len(whole) // 2]):
        file.write_bytes(damaged)
        with pytest.raises(LedgerError, match="is no whole file of `bhnbench export`"):
            merge_rows(target, file, driven=False)
    torn = bytearray(whole)
    place = whole.index(b"runs.jsonl") + 40
    torn[place : place + 8] = bytes(8)
    file.write_bytes(torn)
    with pytest.raises(LedgerError, match=r"rows\.zip"):
        merge_rows(target, file, driven=False)
    with pytest.raises(LedgerError, match="cannot be read: No such file"):
        merge_rows(target, tmp_path / "missing.zip", driven=False)


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    source = address(tmp_path, "source")
    fill(source, tmp_path, text=document("a", 1))
    with pytest.raises(LedgerError, match="cannot be written: No such file or directory"):
        export_rows(source, tmp_path / "missing" / "rows.zip", None)
    with pytest.raises(LedgerError, match="there is no ledger yet"):
        export_rows(address(tmp_path, "nowhere"), tmp_path / "rows.zip", None)
    assert not list(tmp_path.glob("rows*"))
