"""Sweeps run in this process beside the MLflow database that shows them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bhnbench.engine.coordinator import Coordinator, Work
from bhnbench.errors import StopRunError
from bhnbench.ledger.ledger import Ledger
from bhnbench.ledger.records import SweepRecord
from bhnbench.runner import execute
from bhnbench.runs import Point, RunResult
from bhnbench.sweep.document import read_sweep
from bhnbench.tracking.client import close_client, open_client
from bhnbench.tracking.sync import sync
from bhnbench.tracking.tracker import MlflowTracker

SEARCHED = """\
name: demo
tasks: [{name: guess, label: guess, n_steps: 3}]
methods: [constant]
search: {sampler: random, trials: 3}
evaluate: {seeds: 3}
"""
FIXED = """\
name: fixed
tasks: [guess]
methods: [{name: constant, x: 0.5}]
evaluate: {seeds: 2}
"""


@dataclass
class Place:
    """A ledger and an MLflow database side by side."""

    folder: Path
    ledger: Ledger
    store: Path

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.store}"

    @property
    def artifacts(self) -> Path:
        return self.folder / "artifacts"

    def record(self, document: str) -> SweepRecord:
        path = self.folder / "sweep.yaml"
        path.write_text(document)
        return self.ledger.record_sweep(read_sweep(path))

    def tracker(self, sweep: SweepRecord, uri: str | None = None) -> MlflowTracker:
        tracker = MlflowTracker(uri or self.uri, self.artifacts, self.ledger, sweep)
        tracker.start()
        return tracker

    def sync(self, sweep: SweepRecord, **arguments: Any) -> tuple[int, int]:
        report = sync(self.ledger, sweep, self.uri, self.artifacts, **arguments)
        return report.sent, report.already

    def run(
        self, sweep: SweepRecord, tracker: MlflowTracker | None = None, n_runs: int = 1000
    ) -> None:
        """Execute what is left, or the first ``n_runs`` of it."""
        landed = tracker.landed if tracker else lambda study, key: None
        coordinator = Coordinator(self.ledger, sweep, landed)
        for _ in range(n_runs):
            work = coordinator.next_work()
            if work is None:
                return
            execute_and_land(coordinator, work)

    def experiments(self) -> dict[str, Any]:
        client = open_client(self.uri)
        found = {e.name: e for e in client.search_experiments() if e.name != "Default"}
        close_client(self.uri)
        return found

    def runs(self, experiment: str = "demo") -> list[Any]:
        client = open_client(self.uri)
        found = client.get_experiment_by_name(experiment)
        runs = list(client.search_runs([found.experiment_id], max_results=1000))
        close_client(self.uri)
        return runs

    def shows(self, n_trials: int) -> bool:
        """Whether so many trials have ended and their study's summary has arrived."""
        runs = self.runs() if self.experiments() else []
        summaries = [run for run in runs if run.info.status == "RUNNING"]
        return (len(runs), len(summaries)) == (n_trials + 1, 1) and (
            "bhnbench.state" in summaries[0].data.tags
        )

    def curve(self, run: Any, metric: str) -> list[tuple[int, float]]:
        client = open_client(self.uri)
        history = [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, metric)]
        close_client(self.uri)
        return sorted(history)

    def picture(self, experiment: str = "demo") -> list[Any]:
        """All that MLflow shows, less what may differ between rebuilds."""
        runs = self.runs(experiment)
        names = {run.info.run_id: run.info.run_name for run in runs}
        return sorted(
            [
                names[run.info.run_id], run.info.status, run.info.start_time, run.info.end_time,
                run.data.params, run.data.metrics,
                run.data.tags | {"mlflow.parentRunId": names.get(parent_of(run), "")},
            ]
            for run in runs
        )  # fmt: skip


def execute_and_land(coordinator: Coordinator, work: Work) -> None:
    """As the engine does it, early termination included."""
    stopped = False

    def listen(points: Sequence[Point], so_far: Callable[[], RunResult]) -> None:
        nonlocal stopped
        if work.early_termination:
            stopped = coordinator.stops_at_rung(work, so_far())
            if stopped:
                raise StopRunError

    result = execute(work.spec, listen=listen)
    if not stopped:
        coordinator.land(work, result)


def parent_of(run: Any) -> str | None:
    return run.data.tags.get("mlflow.parentRunId")


def tag(run: Any, name: str) -> str | None:
    return run.data.tags.get(f"bhnbench.{name}")


def statuses(runs: list[Any]) -> dict[str, int]:
    found = [run.info.status for run in runs]
    return {status: found.count(status) for status in sorted(set(found))}
