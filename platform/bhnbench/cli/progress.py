"""A sweep's progress on stderr: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time

from rich.console import Console
from rich.table import Table

from bhnbench.cli.options import duration
from bhnbench.ledger.ledger import Ledger
from bhnbench.ledger.records import RunRecord, SweepRecord
from bhnbench.status import StudyStatus, study_statuses
from bhnbench.words import counted


class Progress:
    """Hears what the driver does and shows it. Reads the ledger, which is the only truth."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._ledger: Ledger | None = None
        self._record: SweepRecord | None = None
        self._started = time.monotonic()
        self._first_landed = 0.0
        self._n_landed = 0
        self._n_planned = 0

    def started(self, ledger: Ledger, record: SweepRecord) -> None:
        """The driver knows what is to do."""
        statuses = study_statuses(ledger, record.studies, record.n_seeds)
        self._n_planned = sum(status.n_left for status in statuses)
        known = sum(s.n_trials + s.n_seeds for s in statuses) - self._n_planned
        self._ledger, self._record = ledger, record
        left = counted(self._n_planned, "run")
        self._console.print(f"{record.name}: {left} left, {known} known")

    def landed(self, position: int, key: str) -> None:
        """A run is in the ledger."""
        self._n_landed += 1
        if self._n_landed == 1:
            self._first_landed = time.monotonic()  # before, Ray and the workers were starting
        if self._console.is_terminal or self._record is None or self._ledger is None:
            return
        run = self._ledger.runs([key])[key]
        study = self._record.studies[position].spec
        self._console.print(
            f"[{self._n_landed}/{self._n_planned}] {' / '.join(study.labels)}: "
            f"{describe(run, study.metric)} ({duration(run.cost.seconds)})",
            markup=False,
            soft_wrap=True,
        )

    def table(self) -> Table | str:
        """What a terminal shows."""
        if self._record is None or self._ledger is None:
            return "starting Ray"
        statuses = study_statuses(self._ledger, self._record.studies, self._record.n_seeds)
        return progress_table(statuses, self._headline())

    def _headline(self) -> str:
        left = max(self._n_planned - self._n_landed, 0)
        name = self._record.name if self._record else ""
        elapsed = time.monotonic() - self._started
        since_first = time.monotonic() - self._first_landed
        pace = since_first / (self._n_landed - 1) if self._n_landed > 1 else None
        rest = duration(None if pace is None else pace * left)
        done = f"{self._n_landed} of {counted(self._n_planned, 'run')}"
        return f"{name}: {done}, {duration(elapsed)} so far, about {rest} left"


def describe(run: RunRecord, metric: str) -> str:
    """How a run ended, in a few words."""
    phase = "search" if run.spec.phase == "search" else f"evaluate seed {run.spec.seed}"
    if run.state == "done":
        return f"{phase}, {metric} {run.scores[metric]:.4g}"
    if run.state == "failed":
        return f"{phase} failed: {run.failure}: {run.message}"
    return f"{phase} stopped early" if run.state == "pruned" else f"{phase} {run.state}"


def progress_table(statuses: list[StudyStatus], title: str) -> Table:
    """Where each study stands; the same in `sweep` and in `status`."""
    table = Table(title=title, title_justify="left", expand=False)
    for heading in ("task", "method"):
        table.add_column(heading, overflow="fold")
    for heading in (
        "search",
        "evaluate",
        "running",
        "stopped",
        "failed",
        "best (validation)",
        "time",
    ):
        table.add_column(heading, justify="right")
    for status in statuses:
        running = status.count("running", phase="search") + status.count(
            "running", phase="evaluate"
        )
        best = status.best.value if status.best else None
        table.add_row(
            *status.study.labels,
            f"{status.search.n_ended}/{status.n_trials}" if status.n_trials else "none",
            f"{status.count('done', phase='evaluate')}/{status.n_seeds}",
            str(running or ""),
            str(status.count("pruned", phase="search") or ""),
            str(len(status.failures) or ""),
            "" if best is None else f"{best:.4g}",
            duration(status.seconds) if status.seconds else "",
        )
    return table
