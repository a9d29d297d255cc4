"""What lies in a home and nothing refers to any more. The ledger says what is referred to.

To be called by who holds the home (``home.locked``): no driver is at work in it then.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bhnbench.home import Home
from bhnbench.journal import FILE, N_FILES, journal_files
from bhnbench.ledger.ledger import Ledger
from bhnbench.tracking.leftovers import leftover_artifacts

JOURNAL_DAYS = 90
CHECKPOINT = re.compile(r"([0-9a-f]{64})\.pt(\..+)?")
FIGURES = re.compile(r".+-\d+")


@dataclass(frozen=True)
class Garbage:
    """A file or folder that may go."""

    kind: str
    path: Path
    n_bytes: int

    def remove(self) -> None:
        """Remove it; OSError where it cannot be."""
        if self.path.is_dir():
            shutil.rmtree(self.path)
        else:
            self.path.unlink(missing_ok=True)


def find_garbage(home: Home, ledger: Ledger) -> Iterator[Garbage]:
    """Everything in a home that nothing refers to.

    Raises:
        BhnbenchError: MLflow's database cannot be read; that comes last.
    """
    found = {
        "checkpoint": _checkpoints(home, ledger),
        "scratch folder": _left_by_the_dead(home),
        "figures folder": _figures(home, ledger),
        "journal file": _journal(home),
        "artifact folder": _artifacts(home),
    }
    for kind, paths in found.items():
        for path in paths:
            yield Garbage(kind, path, _size(path))


def _checkpoints(home: Home, ledger: Ledger) -> Iterator[Path]:
    """Progress of runs that will not go on, or are not known; and saves that were cut short."""
    files = {
        path: match
        for path in _entries(home.checkpoints)
        if path.is_file() and (match := CHECKPOINT.fullmatch(path.name))
    }
    runs = ledger.runs(match[1] for match in files.values())
    for path, match in files.items():
        run = runs.get(match[1])
        if match[2] or run is None or run.settled or run.state == "pruned":
            yield path


def _left_by_the_dead(home: Home) -> Iterator[Path]:
    """Folders that killed processes worked in."""
    for path in _entries(home.folder):
        if path.name.startswith(("scratch-", "mlflow.db.part-")) and path.is_dir():
            yield path


def _figures(home: Home, ledger: Ledger) -> Iterator[Path]:
    """Figures of sweeps that the ledger does not have."""
    known = {home.figures_of(sweep.name, sweep.id) for sweep in ledger.sweeps()}
    for path in _entries(home.figures):
        if FIGURES.fullmatch(path.name) and path.is_dir() and path not in known:
            yield path


def _journal(home: Home) -> Iterator[Path]:
    """Files of months ago, and those that a longer journal left."""
    oldest = time.time() - JOURNAL_DAYS * 24 * 3600
    for path in journal_files(home.journal):
        age = path.name.removeprefix(f"{FILE}.")
        if age != FILE and (int(age) >= N_FILES or path.stat().st_mtime < oldest):
            yield path


def _artifacts(home: Home) -> Iterator[Path]:
    """Artifacts that the home's own MLflow does not know; another's are its own business."""
    own = home.folder / "mlflow.db"
    if home.tracking_uri == f"sqlite:///{own}" and own.exists():
        yield from leftover_artifacts(home.artifacts, home.tracking_uri)


def _entries(folder: Path) -> list[Path]:
    """What is in a folder, links left out: what they point to is not the home's."""
    return sorted(p for p in folder.glob("*") if not p.is_symlink())


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if not path.is_dir():
        return path.stat().st_size
    places = (Path(top) / name for top, _, names in os.walk(path) for name in names)
    return sum(place.lstat().st_size for place in places)
