"""Follows a live sweep in MLflow, beside it: one thread writes, and nothing here stops a sweep."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bhnbench.ledger.ledger import Ledger
from bhnbench.ledger.records import SweepRecord
from bhnbench.tracking.addresses import reason, shown

if TYPE_CHECKING:
    from bhnbench.tracking.figures import DrawFigures
    from bhnbench.tracking.projection import Projection

QUEUE_SIZE = 10_000  # what does not fit is found in the ledger by close()
SUMMARY_SECONDS = 10.0  # a study's summary reads all of its trials
PAUSE_SECONDS = 60.0  # after a failure, events pass by unsent: close() catches up

Event = tuple[int, str]  # (study's position, run's key)


class MlflowTracker:
    """Shows each run of a sweep in MLflow soon after it is in the ledger.

    mlflow is imported by the thread when the first run lands: by then the driver is through with
    its own imports, with which a second importing thread could get entangled.
    """

    def __init__(
        self,
        uri: str,
        artifact_folder: Path,
        ledger: Ledger,
        sweep: SweepRecord,
        draw: DrawFigures | None = None,
    ) -> None:
        """Nothing is opened yet.

        Args:
            uri: MLflow's database or server.
            artifact_folder: where figures go if MLflow has no server.
            ledger: the truth.
            sweep: as recorded in it.
            draw: draws the sweep's figures.
        """
        self._uri = uri
        self._artifact_folder = artifact_folder
        self._ledger = ledger
        self._sweep = sweep
        self._draw = draw
        self._events: queue.Queue[Event | None] = queue.Queue(QUEUE_SIZE)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="mlflow-tracker", daemon=True)
        self._projection: Projection | None = None
        self._paused_until = 0.0
        self._outdated: set[int] = set()  # studies whose summary lags behind their runs
        self._next_summary = 0.0
        self._problem: str | None = None

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def landed(self, study_position: int, run_key: str) -> None:
        """A run's result is in the ledger. Returns at once."""
        with contextlib.suppress(queue.Full):
            self._events.put_nowait((study_position, run_key))

    def close(self) -> str | None:
        """Send what is left, finish the studies' summaries.

        Returns:
            One line that says what MLflow lacks and how to repair it, or None.
        """
        self._closing.set()
        with contextlib.suppress(queue.Full):
            self._events.put_nowait(None)
        self._thread.join()
        return self._problem

    def _follow(self) -> None:
        while not self._closing.is_set():
            event = self._events.get()
            if event is not None and time.monotonic() >= self._paused_until:
                self._try(partial(self._send, event))
        self._try(_reconcile)
        self._release()

    def _send(self, event: Event, projection: Projection) -> None:
        position, key = event
        projection.send_run(position, key)
        self._outdated.add(position)
        if self._events.empty() and time.monotonic() >= self._next_summary:
            while self._outdated:
                projection.update_study(self._outdated.pop())
            self._next_summary = time.monotonic() + SUMMARY_SECONDS

    def _try(self, act: Callable[[Projection], object]) -> None:
        """Act on MLflow; a failure is remembered, and the next act starts afresh."""
        try:
            if self._projection is None:
                self._projection = self._open()
            act(self._projection)
            self._problem = None
        except BaseException as error:
            self._problem = (
                f"MLflow at {shown(self._uri)} does not show all of sweep {self._sweep.name!r}: "
                f"{reason(error, self._uri)}; `bhnbench sync` sends what is missing"
            )
            self._paused_until = time.monotonic() + PAUSE_SECONDS
            self._release()

    def _open(self) -> Projection:
        from bhnbench.tracking.projection import Projection

        return Projection(self._ledger, self._sweep, self._uri, self._artifact_folder, self._draw)

    def _release(self) -> None:
        projection, self._projection = self._projection, None
        if projection is not None:
            with contextlib.suppress(Exception):
                projection.close()


def _reconcile(projection: Projection) -> None:
    projection.reconcile()
