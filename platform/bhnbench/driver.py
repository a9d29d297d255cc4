"""Drives a sweep: ledger, engine and tracker together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from bhnbench.home import Home
from bhnbench.leaderboard.plots import draw_figures
from bhnbench.ledger.ledger import Ledger
from bhnbench.ledger.records import SweepRecord
from bhnbench.status import StudyStatus, study_statuses
from bhnbench.sweep.document import Sweep
from bhnbench.tracking.tracker import MlflowTracker

OnLanded = Callable[[int, str], None]
"""Hears (study's position in the sweep, run's key) when a result is in the ledger."""


@dataclass(frozen=True)
class SweepEnd:
    """How a sweep ended."""

    record: SweepRecord
    n_executed: int
    interrupted: bool
    tracking_problem: str | None  # one line, or None

    def statuses(self, ledger: Ledger) -> list[StudyStatus]:
        """Where its studies stand now."""
        return study_statuses(ledger, self.record.studies, self.record.n_seeds)


def drive(
    sweep: Sweep,
    home: Home,
    ledger: Ledger,
    *,
    on_started: Callable[[SweepRecord], None],
    on_landed: OnLanded,
) -> SweepEnd:
    """Run what is left of a sweep, in a home that is locked.

    Raises:
        ResourceError: the cluster can never satisfy the request of a run.
        LedgerError: the ledger no longer takes what is found.
    """
    ledger.release_runs()
    record = ledger.record_sweep(sweep)
    on_started(record)
    draw = partial(draw_figures, ledger)
    tracker = MlflowTracker(home.tracking_uri, home.artifacts, ledger, record, draw)
    tracker.start()

    executed: list[str] = []

    def landed(study: int, key: str) -> None:
        executed.append(key)
        on_landed(study, key)
        tracker.landed(study, key)

    interrupted = False
    try:
        _execute(sweep, home, ledger, record, landed)
        ledger.finish_sweep(record.id)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        ledger.release_runs()
        problem = tracker.close()
    return SweepEnd(record, len(executed), interrupted, problem)


def _execute(
    sweep: Sweep, home: Home, ledger: Ledger, record: SweepRecord, landed: OnLanded
) -> None:
    statuses = study_statuses(ledger, record.studies, record.n_seeds)
    if not any(status.n_left for status in statuses):
        return  # no need to start a cluster
    from bhnbench.engine.coordinator import Coordinator
    from bhnbench.engine.sweep import run_to_the_end

    coordinator = Coordinator(ledger, record, landed)
    run_to_the_end(coordinator, sweep.resources, home.checkpoints)
