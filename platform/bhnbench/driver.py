"""Drives a sweep: ledger, engine and tracker together."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from bhnbench.errors import LedgerError
from bhnbench.home import Home
from bhnbench.interrupts import interrupts_deferred
from bhnbench.journal import Journal
from bhnbench.leaderboard.plots import draw_figures
from bhnbench.ledger.leases import BEAT_SECONDS
from bhnbench.ledger.ledger import Ledger
from bhnbench.ledger.records import SweepRecord
from bhnbench.sweep.document import Sweep
from bhnbench.tracking.tracker import MlflowTracker

PATIENCE_SECONDS = 120.0  # for a database server that restarts
LAST_PATIENCE_SECONDS = 5.0  # when the sweep is to end


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
    problems: tuple[str, ...]  # one line each: of MLflow, of the journal


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
        from bhnbench.engine.cluster import open_cluster
        from bhnbench.engine.coordinator import Coordinator
        from bhnbench.engine.sweep import run_to_the_end

    with ExitStack() as stack:
        requests = {sweep.resources_of(study) for study in sweep.studies}
        cluster = stack.enter_context(open_cluster(requests)) if anything_left else None
        stack.enter_context(home.locked())
        ledger = stack.enter_context(_joined(home))
        record = ledger.record_sweep(sweep)
        journal = Journal(home.journal, sweep=record.name, sweep_id=record.id)
        journal.write("sweep_started", resumed=record.started_at != record.created_at)
        for study in record.studies:
            label, n_trials = " / ".join(study.spec.labels), study.n_trials
            journal.write("planned", study=label, trials=n_trials, seeds=record.n_seeds)
        listener.started(ledger, record)
        draw = partial(draw_figures, ledger)
        tracker = MlflowTracker(home.tracking_uri, home.artifacts, ledger, record, draw)
        tracker.start()
        n_executed = 0

        def landed(position: int, key: str) -> None:
            nonlocal n_executed
            n_executed += 1
            listener.landed(position, key)
            tracker.landed(position, key)

        interrupted, how = False, "failed"
        try:
            if cluster is not None:
                coordinator = Coordinator(
                    ledger,
                    record,
                    landed,
                    resources_of=sweep.resources_of,
                    retries=sweep.retries,
                    fits=cluster.fits,
                    journal=journal,
                )
                with home.scratch() as scratch:
                    run_to_the_end(
                        coordinator, cluster, sweep.storage or str(home.checkpoints), scratch
                    )
            ledger.finish_sweep(record.id)
            how = "finished"
        except KeyboardInterrupt:
            interrupted, how = True, "interrupted"
        finally:
            ledger.patience_seconds = LAST_PATIENCE_SECONDS
            with contextlib.suppress(LedgerError):  # its lease ends by itself; the error was told
                ledger.leave()
            problems = [tracker.close()]
            journal.write("sweep_ended", how=how, executed=n_executed)
            problems.append(journal.close())
    return SweepEnd(record, n_executed, interrupted, tuple(filter(None, problems)))


@contextmanager
def _joined(home: Home) -> Iterator[Ledger]:
    """The ledger, which hears now and then that this driver is alive."""
    with Ledger(home.ledger, create=True, patience_seconds=PATIENCE_SECONDS) as ledger:
        ledger.join(alone=not home.shares_ledger)
        ledger.release_runs()
        over = threading.Event()

        def beat() -> None:
            while not over.wait(BEAT_SECONDS):
                with contextlib.suppress(LedgerError):  # told where the sweep needs the ledger
                    ledger.beat()

        thread = threading.Thread(target=beat, name="driver-beat", daemon=True)
        thread.start()
        try:
            yield ledger
        finally:
            over.set()
            thread.join()
