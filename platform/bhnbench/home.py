"""Where the embedded defaults live: ledger, MLflow's database, artifacts, progress of runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bhnbench.errors import BhnbenchError

DEFAULT = "bhnbench_home"


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
    def tracking_uri(self) -> str:
        """URI of MLflow's store or server; may hold a password, so it is never printed."""
        default = f"sqlite:///{self.folder / 'mlflow.db'}"
        return os.environ.get("MLFLOW_TRACKING_URI") or default

    @property
    def artifacts(self) -> Path:
        """Where MLflow keeps files when it has no server."""
        return self.folder / "artifacts"

    @property
    def checkpoints(self) -> Path:
        """Where long runs keep their progress."""
        return self.folder / "checkpoints"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the home for one driver; the lock goes with the process, however it ends.

        Raises:
            BhnbenchError: another driver holds it, or the folder cannot be written.
        """
        import fcntl

        path = self.folder / "driver.lock"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = path.open("a+", encoding="utf-8")
        except OSError as error:
            reason = f"{error.filename}: cannot be written: {error.strerror}"
            raise BhnbenchError(reason) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                raise BhnbenchError(
                    f"{self.folder}: one sweep at a time, but process {file.read().strip()} runs "
                    "one here; wait for it, or name another home with --home"
                ) from error
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield
