"""A driver that is started again until its sweep is done, as a cluster's manager does."""

from __future__ import annotations

import subprocess
import threading
from collections import Counter
from pathlib import Path

from tests.integration.cluster.hosts import kill
from tests.integration.cluster.lab import Lab

PAUSE = 1.0  # between two drivers


class DriverLoop(threading.Thread):
    """Runs ``bhnbench sweep`` on the head, again and again, until it ends with exit code 0."""

    def __init__(self, lab: Lab, sweep: Path) -> None:
        super().__init__(daemon=True)
        self.exit_codes: Counter[int] = Counter()
        self.done = threading.Event()
        self._lab, self._sweep = lab, sweep
        self._log = lab.folder / "driver.log"
        self._given_up = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        """Until the sweep is done."""
        while not self._given_up.is_set():
            self._process = self._lab.start_bhnbench("sweep", self._sweep, log=self._log)
            code = self._process.wait()
            self.exit_codes[code] += 1
            if code == 0:
                self.done.set()
                return
            self._given_up.wait(PAUSE)

    def kill(self) -> bool:
        """SIGKILL; returns whether there was a driver."""
        process = self._process
        if process is None or process.poll() is not None:
            return False
        kill(process)
        return True

    def stop(self) -> None:
        """Start no driver any more."""
        self._given_up.set()
        self.kill()
        self.join(60)

    def last_words(self) -> str:
        """The end of what the drivers have said."""
        return self._log.read_text(errors="replace")[-3000:] if self._log.exists() else ""
