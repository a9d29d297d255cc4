"""The driver's journal: one JSON object a line for every decision, to tell a run's story from.

Every line holds ``time`` (UTC), ``event``, ``driver`` (host and process id), what the journal was
opened with (the sweep's name and number), ``run`` (a run's key) where it is about one, and:

=============  ====================================================================================
event          further fields
=============  ====================================================================================
sweep_started  resumed (whether it had been started before)
planned        study ("task / method"), trials, seeds: once a study
cached         study, trial; state (how it ended then), source (sweep or driver that executed it)
started        study, trial, attempt (from 1); host, where it is known that early; resources
done           seconds; host, device
pruned         study, trial, rung (the step), value; cutoff (what it had to reach)
failed         failure (its class), message; seconds, host, device
retried        failure, message: it failed, and is to be tried again (no ``failed`` of its own);
               attempt (the next one), resources (asked now), before (until now)
quarantined    reason
taken_over     source (the driver that had it and is gone)
waiting        source (the driver that holds it)
refused        reason: a result came too late, from a driver that had lost the run; state
sweep_ended    how ("finished", "interrupted", "failed"), executed (how many runs)
=============  ====================================================================================

``trial`` is a trial's number, None for a run that evaluates. ``resources`` and ``before`` are
``{"cpu": 1, "gpu": 0.5, "memory": 4}`` (GiB), or a part of it. What is None is not written, and of
a database's address no password. The journal explains; only the ledger counts.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, Literal

from bhnbench.words import counted, one_line

Event = Literal[
    "sweep_started", "planned", "cached", "started", "done", "pruned", "failed", "retried",
    "quarantined", "taken_over", "waiting", "refused", "sweep_ended",
]  # fmt: skip

FILE = "driver.jsonl"  # the newest; .1, .2, ... are older
MAX_BYTES = 16 * 2**20  # some 50 000 events
N_FILES = 8
TEXT_LENGTH = 2000
PASSWORD = re.compile(r"(//[^/@:\s]*:)[^/@\s]+@")


def driver_name() -> str:
    """This process, as the journal names it."""
    return f"{socket.gethostname()}:{os.getpid()}"


class Journal:
    """Writes events; where the disk takes no more, it loses them rather than the sweep."""

    def __init__(
        self,
        folder: Path | None,
        *,
        max_bytes: int = MAX_BYTES,
        n_files: int = N_FILES,
        **context: object,
    ) -> None:
        """Nothing is opened before the first event.

        Args:
            folder: where the files are; None: nothing is written.
            max_bytes: of one file.
            n_files: kept, the one being written included.
            **context: fields of every event, such as ``sweep`` and ``sweep_id``.
        """
        self._folder = folder
        self._max_bytes = max_bytes
        self._n_files = n_files
        self._context = {"driver": driver_name(), **context}
        self._lock = threading.Lock()
        self._file: BinaryIO | None = None
        self._n_lost = 0
        self._problem = ""

    def write(self, event: Event, run: str | None = None, **fields: object) -> None:
        """Append an event; it is with the operating system when this returns. Never raises."""
        if self._folder is None:
            return
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        content = {"time": time, "event": event, **self._context, "run": run, **fields}
        line = json.dumps({k: _plain(v) for k, v in content.items() if v is not None})
        with self._lock:
            try:
                self._append(self._folder, line.encode() + b"\n")
            except OSError as error:
                self._n_lost += 1
                self._problem = error.strerror or type(error).__name__
                self._release()

    def close(self) -> str | None:
        """Close the file.

        Returns:
            One line that says what was lost and why, or None.
        """
        with self._lock:
            self._release()
        if not self._n_lost:
            return None
        lost = f"{counted(self._n_lost, 'event')} could not be written ({self._problem})"
        return f"{self._folder}: {lost}; `bhnbench why` does not know of them, the ledger does"

    def _append(self, folder: Path, line: bytes) -> None:
        file = self._file or self._open(folder)
        size = os.fstat(file.fileno()).st_size
        if size and size + len(line) > self._max_bytes:
            self._release()
            _rotate(folder, self._n_files)
            file = self._open(folder)
        if file.write(line) < len(line):
            raise OSError(errno.ENOSPC, "the line was cut short")

    def _open(self, folder: Path) -> BinaryIO:
        """The newest file; a line that a killed driver or a full disk tore is ended first."""
        folder.mkdir(parents=True, exist_ok=True)
        self._file = file = (folder / FILE).open("a+b", buffering=0)
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        return file

    def _release(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()  # unbuffered: nothing is left to write


def _rotate(folder: Path, n_files: int) -> None:
    """The newest file becomes the second newest, and so on; the oldest goes."""
    names = [FILE, *(f"{FILE}.{age}" for age in range(1, n_files))]
    (folder / names[-1]).unlink(missing_ok=True)
    for newer, older in reversed(list(pairwise(names))):
        if (folder / newer).exists():
            (folder / newer).replace(folder / older)


def _plain(value: object) -> object:
    """What JSON can hold, without passwords and without end."""
    match value:
        case float() if not math.isfinite(value):
            return str(value)
        case None | bool() | int() | float():
            return value
        case Mapping():
            return {str(key): _plain(entry) for key, entry in value.items()}
        case list() | tuple():
            return [_plain(entry) for entry in value]
    return PASSWORD.sub(r"\1***@", one_line(value))[:TEXT_LENGTH]


def read_events(
    folder: Path, run: str | None = None, *, sweeps: bool = False
) -> Iterator[dict[str, Any]]:
    """All events, the oldest first.

    Args:
        folder: of the journal; it may be missing.
        run: a run's key: only its events.
        sweeps: with ``run``, also the events that are about no run.
    """
    ours = f'"run": "{run}"'.encode()
    for path in journal_files(folder):
        try:
            with path.open("rb") as file:
                lines = [
                    line
                    for line in file
                    if run is None or ours in line or (sweeps and b'"run": "' not in line)
                ]
        except FileNotFoundError:
            continue  # rotated away meanwhile
        for line in lines:
            event = _parse(line)
            if event is not None:
                yield event


def journal_files(folder: Path) -> list[Path]:
    """The files of a journal, the oldest first."""
    ages = {path: path.name.removeprefix(FILE)[1:] for path in folder.glob(f"{FILE}*")}
    known = [path for path, age in ages.items() if path.name == FILE or age.isdecimal()]
    return sorted(known, key=lambda path: int(ages[path] or 0), reverse=True)


def _parse(line: bytes) -> dict[str, Any] | None:
    """An event, or None where the line is torn."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and {"time", "event"} <= event.keys() else None
