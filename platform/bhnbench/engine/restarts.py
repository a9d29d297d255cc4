"""What a job runs: the driver, started again where it was lost, while the job lives.

``python -m bhnbench.engine.restarts sweep.yaml`` imports next to nothing, and so outlives a driver
that memory ran out for. A driver that was started again goes on from the ledger.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

RESTARTS = 10
PAUSE_SECONDS = 60.0  # at most, between two starts
INTERRUPTED = 75  # the driver was told to save and go


def goes_on(code: int) -> bool:
    """Whether a driver that ended so has something left to do: it was killed, or interrupted.

    Done (0), failed (1), a wrong document (2), failed runs (3) and Ctrl-C (130) would end the same
    way again, or are somebody's wish.
    """
    return code < 0 or code == INTERRUPTED


def keep_running(command: Sequence[str], *, restarts: int = RESTARTS) -> int:
    """Run a command, again while it is lost, until it ends by itself or somebody stops the job.

    Ray stops a job by a signal to each of its processes, so the command has had it too.

    Returns:
        The command's last exit code, as a shell would tell it.
    """
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stopped.set())
    for start in range(restarts + 1):
        code = subprocess.Popen(command).wait()
        if stopped.is_set() or not goes_on(code):
            break
        if start < restarts:
            how = f"by signal {-code}" if code < 0 else f"with code {code}"
            again = f"starting it again ({start + 1} of {restarts})"
            print(f"the driver ended {how}; {again}", file=sys.stderr, flush=True)
            if stopped.wait(min(2.0**start, PAUSE_SECONDS)):
                break
    return code if code >= 0 else 128 - code


def main(arguments: Sequence[str]) -> int:
    """Drive a sweep; the ledger is the cluster's, or lies in the home of whoever runs Ray."""
    # The working folder of a job is one of Ray's, which goes away.
    os.environ.setdefault("BHNBENCH_HOME", str(Path.home() / "bhnbench_home"))
    return keep_running([sys.executable, "-m", "bhnbench.cli", "sweep", *arguments])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
