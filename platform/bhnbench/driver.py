"""Drives a sweep: ledger, engine and tracker together."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from bhnbench.home import Home
from bhnbench.interrupts import interrupts_deferred
from bhnbench.leaderboard.plots import draw_figures
from bhnbench.ledger.ledger import Ledger
from bhnbench.ledger.records import SweepRecord
from bhnbench.sweep.document import Sweep
from bhnbench.tracking.tracker import MlflowTracker


class Listener(Protocol):
    """Hears how a sweep gets on."""

    def started(self, ledger: Ledger, record: SweepRecord) -> None:
        """The sweep is in the ledger, and its first runs are about to be handed out."""

    def landed(self, position: int, key: str) -> None:
        """A run of the study at ``position`` of the sweep is in the ledger."""


@dataclass(frozen=True)
class SweepEnd:
    """How a sweep ended."""

    record: SweepRecord
    n_executed: int
    interrupted: bool
    tracking_problem: str | None  # one line, or None


def drive(sweep: Sweep, home: Home, listener: Listener, *, anything_left: bool) -> SweepEnd:
    """Run what is left of a sweep. Nothing is written before the cluster is known to fit it.

    Args:
        sweep: what to run.
        home: where ledger and tracker are; locked meanwhile.
        listener: hears what happens, in this thread.
        anything_left: without it no cluster is started, and only the records are brought up
            to date.

    Raises:
        ResourceError: the cluster can never satisfy the request of a run.
        LedgerError: the ledger cannot be opened, or no longer takes what is found.
    """
    with interrupts_deferred():
        from bhnbench.engine.coordinator import Coordinator
        from bhnbench.engine.sweep import open_cluster, run_to_the_end

    with ExitStack() as stack:
        slots = stack.enter_context(open_cluster(sweep.resources)) if anything_left else 0
        stack.enter_context(home.locked())
        ledger = stack.enter_context(Ledger(home.ledger, create=True))
        ledger.release_runs()
        record = ledger.record_sweep(sweep)
        listener.started(ledger, record)
        draw = partial(draw_figures, ledger)
        tracker = MlflowTracker(home.tracking_uri, home.artifacts, ledger, record, draw)
        tracker.start()
        executed: list[str] = []

        def landed(position: int, key: str) -> None:
            executed.append(key)
            listener.landed(position, key)
            tracker.landed(position, key)

        interrupted = False
        try:
            if slots:
                coordinator = Coordinator(ledger, record, landed)
                with home.scratch() as scratch:
                    run_to_the_end(coordinator, sweep.resources, slots, home.checkpoints, scratch)
            ledger.finish_sweep(record.id)
        except KeyboardInterrupt:
            interrupted = True
        finally:
            ledger.release_runs()
            problem = tracker.close()
    return SweepEnd(record, len(executed), interrupted, problem)
