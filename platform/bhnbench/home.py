"""Where the embedded defaults live: ledger, MLflow's database, artifacts, progress of runs."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TextIO

from bhnbench.errors import BhnbenchError
from bhnbench.words import as_file_name

DEFAULT = "bhnbench_home"
LOOK_SECONDS = 0.5  # longer than anybody needs to see whether a driver is at work


@dataclass(frozen=True)
class Home:
    """A home folder; nothing is made before something is written."""

    folder: Path

    @classmethod
    def locate(cls, folder: str | None = None) -> Home:
        """The folder given, else ``$BHNBENCH_HOME``, else ``./bhnbench_home``."""
        chosen = folder or os.environ.get("BHNBENCH_HOME") or DEFAULT
        return cls(Path(chosen).expanduser().absolute())

    @property
    def ledger(self) -> str:
        """URL of the ledger; may hold a password, so it is never printed."""
        default = f"sqlite:///{self.folder / 'ledger.db'}"
        return os.environ.get("BHNBENCH_LEDGER") or default

    @property
    def shares_ledger(self) -> bool:
        """Whether drivers of other homes may write the same ledger."""
        return bool(os.environ.get("BHNBENCH_LEDGER"))

    @property
    def tracking_uri(self) -> str:
        """URI of MLflow's store or server; may hold a password, so it is never printed."""
        default = f"sqlite:///{self.folder / 'mlflow.db'}"
        return os.environ.get("MLFLOW_TRACKING_URI") or default

    @property
    def artifacts(self) -> Path:
        """Where MLflow keeps files when it has no server."""
        return self.folder / "artifacts"

    @property
    def figures(self) -> Path:
        """Where sweeps draw."""
        return self.folder / "figures"

    def figures_of(self, sweep: str, number: int) -> Path:
        """Where one sweep draws."""
        return self.figures / as_file_name(f"{sweep}-{number}")

    @property
    def checkpoints(self) -> Path:
        """Where long runs keep their progress."""
        return self.folder / "checkpoints"

    @property
    def journal(self) -> Path:
        """Where drivers write down what they decide."""
        return self.folder / "journal"

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder that is gone in the end, for the driver that holds the lock."""
        for left in self.folder.glob("scratch-*"):  # by a driver that was killed
            shutil.rmtree(left, ignore_errors=True)
        with TemporaryDirectory(
            prefix="scratch-", dir=self.folder, ignore_cleanup_errors=True
        ) as folder:
            yield Path(folder)

    @property
    def may_be_driven(self) -> bool:
        """Whether a driver may be at work on the ledger, here or on another machine."""
        if self.shares_ledger:
            return True
        try:
            with self._lock_file.open(encoding="utf-8") as file:
                return not _take(file, shared=True)
        except OSError as error:
            return not isinstance(error, FileNotFoundError)

    @property
    def _lock_file(self) -> Path:
        return self.folder / "driver.lock"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the home for one driver; the lock goes with the process, however it ends.

        Raises:
            BhnbenchError: another driver holds it, or the folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = self._lock_file.open("a+", encoding="utf-8")
        except OSError as error:
            reason = f"{error.filename}: cannot be written: {error.strerror}"
            raise BhnbenchError(reason) from error
        with file:
            until = time.monotonic() + LOOK_SECONDS
            while not _take(file, shared=False):
                if time.monotonic() > until:
                    file.seek(0)
                    raise BhnbenchError(
                        f"{self.folder}: one sweep at a time, but process {file.read().strip()} "
                        "runs one here; wait for it, or name another home with --home"
                    )
                time.sleep(LOOK_SECONDS / 50)
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield


def _take(file: TextIO, *, shared: bool) -> bool:
    """Take the lock on a file, which goes when the file is closed; False where another has it."""
    import fcntl

    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
