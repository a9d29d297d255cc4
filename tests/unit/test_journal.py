"""The driver's journal: what it keeps, what it survives, what it never holds."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bhnbench.journal import FILE, Journal, journal_files, read_events

KEY = "ab12" * 16
OTHER = "cd34" * 16


def note(folder: Path, *arguments: str, **fields: object) -> None:
    """Write one event, as a driver that has no other."""
    journal = Journal(folder)
    journal.write(*arguments, **fields)
    assert journal.close() is None


def events(folder: Path, run: str | None = None) -> list[str]:
    return [event["event"] for event in read_events(folder, run)]


def test_an_event_says_when_who_and_what(tmp_path: Path) -> None:
    before = datetime.now(UTC)
    journal = Journal(tmp_path, sweep="mine", sweep_id=3)
    journal.write("started", KEY, study="guess / constant", trial=None, attempt=1)
    journal.write("sweep_ended", how="finished")
    assert journal.close() is None
    (started,) = read_events(tmp_path, KEY)
    when = datetime.fromisoformat(started.pop("time"))
    assert abs((when - before).total_seconds()) < 60
    host, _, process = started.pop("driver").rpartition(":")
    assert (host, int(process)) == (os.uname().nodename, os.getpid())
    assert started == {
        "event": "started",
        "sweep": "mine",
        "sweep_id": 3,
        "run": KEY,
        "study": "guess / constant",
        "attempt": 1,
    }


def test_a_runs_events_come_in_order_across_rotated_files(tmp_path: Path) -> None:
    journal = Journal(tmp_path, max_bytes=1000, n_files=4)
    for attempt in range(1, 13):
        journal.write("started", KEY if attempt % 2 else OTHER, attempt=attempt)
    journal.close()
    assert len(journal_files(tmp_path)) > 1
    found = [event["attempt"] for event in read_events(tmp_path, KEY)]
    assert found == [1, 3, 5, 7, 9, 11]
    assert [event["attempt"] for event in read_events(tmp_path)] == list(range(1, 13))


def test_old_files_go(tmp_path: Path) -> None:
    journal = Journal(tmp_path, max_bytes=1000, n_files=3)
    for attempt in range(200):
        journal.write("started", KEY, attempt=attempt)
    journal.close()
    names = [path.name for path in journal_files(tmp_path)]
    assert names == [f"{FILE}.2", f"{FILE}.1", FILE]
    assert sorted(names) == sorted(path.name for path in tmp_path.iterdir())
    assert all(path.stat().st_size <= 1000 for path in tmp_path.iterdir())
    attempts = [event["attempt"] for event in read_events(tmp_path)]
    assert attempts == list(range(attempts[0], 200))


def test_a_line_is_there_at_once_and_a_killed_driver_costs_no_other(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from bhnbench.journal import Journal
Journal(Path(sys.argv[1])).write("started", sys.argv[2])
print("written", flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", code, str(tmp_path), KEY]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert events(tmp_path, KEY) == ["started"]
    with (tmp_path / FILE).open("ab") as file:  # and another died within a line
        file.write(b'{"time": "2026-01-01T00:00:00+00:00", "event": "done", "run": "ab1')
    assert events(tmp_path, KEY) == ["started"]
    note(tmp_path, "taken_over", KEY, source="lab:7")
    assert events(tmp_path, KEY) == ["started", "taken_over"]


@pytest.mark.parametrize("torn", [b"\xff\xfe\n", b"[1, 2]\n", b'{"event": "done"}\n', b"\n"])
def test_what_is_no_event_is_passed_over(tmp_path: Path, torn: bytes) -> None:
    note(tmp_path, "started", KEY)
    with (tmp_path / FILE).open("ab") as file:
        file.write(torn)
    note(tmp_path, "done", KEY)
    assert events(tmp_path) == ["started", "done"]


def test_a_full_disk_silences_it_and_it_speaks_again_when_there_is_room(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: the line is cut in the middle."""
    signal_before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    journal = Journal(tmp_path)
    journal.write("started", KEY)
    size = (tmp_path / FILE).stat().st_size
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, limits[1]))
        journal.write("done", KEY)
        journal.write("done", KEY)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, signal_before)
    journal.write("sweep_ended", KEY)
    problem = journal.close()
    assert problem is not None
    assert problem.startswith(f"{tmp_path}: 2 events could not be written (")
    assert events(tmp_path, KEY) == ["started", "sweep_ended"]


def test_a_folder_that_cannot_be_made_is_told_in_the_end(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    journal = Journal(tmp_path / "file")
    journal.write("started", KEY)
    problem = journal.close()
    assert problem is not None
    assert "1 event could not be written (File exists)" in problem


def test_without_a_folder_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    journal = Journal(None)
    journal.write("started", KEY)
    assert journal.close() is None
    assert not list(tmp_path.iterdir())
    assert list(read_events(tmp_path / "missing")) == []


def test_it_holds_no_password_and_one_line_an_event(tmp_path: Path) -> None:
    message = "cannot reach postgresql+psycopg://me:s3cret@server/db\nand more" + "x" * 5000
    asked = {"memory": float("inf"), "url": "http://me:s3cret@server"}
    note(tmp_path, "failed", KEY, message=message, resources=asked, value=float("nan"))
    text = (tmp_path / FILE).read_text()
    assert "s3cret" not in text
    assert text.count("\n") == 1
    event = json.loads(text)
    assert event["message"].startswith("cannot reach postgresql+psycopg://me:***@server/db and")
    assert len(event["message"]) == 2000
    assert (event["value"], event["resources"]["memory"]) == ("nan", "inf")


def test_threads_write_whole_lines(tmp_path: Path) -> None:
    journal = Journal(tmp_path, max_bytes=20_000, n_files=100)

    def write(number: int) -> None:
        for attempt in range(100):
            journal.write("started", KEY, thread=number, attempt=attempt)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal.close()
    found = list(read_events(tmp_path))
    assert len(found) == 400
    for number in range(4):
        attempts = [event["attempt"] for event in found if event["thread"] == number]
        assert attempts == list(range(100))
