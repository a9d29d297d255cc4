"""The MLflow experiment of one sweep: what it holds, and how to add to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag

from bhnbench.errors import BhnbenchError
from bhnbench.ledger.records import SweepRecord
from bhnbench.specs import digest
from bhnbench.tracking.content import PARENT, ChildIdentity, StudyIdentity, Value
from bhnbench.words import as_file_name

PAGE = 500  # runs a listing
COMPARED = (
    PARENT,
    *(f"bhnbench.{k}" for k in ("run", "state", "failure", "attempts")),
)  # children
MAX_METRICS, MAX_PARAMS = 800, 100  # of one log_batch, which takes 1000 entities in all

T = TypeVar("T")

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass
class Known:
    """A run as MLflow has it."""

    run_id: str
    status: str = "RUNNING"
    end_time: int | None = None
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def state(self) -> str | None:
        """As the ledger had it; None where not all of the run has arrived."""
        return self.tags.get("bhnbench.state")

    def shorten(self) -> Known:
        """Keep what a child is compared by; a sweep may have very many."""
        self.tags = {name: self.tags[name] for name in COMPARED if name in self.tags}
        self.params, self.metrics = {}, {}
        return self


class Experiment:
    """All that MLflow has of one sweep, and the verbs that change it."""

    def __init__(
        self, client: MlflowClient, sweep: SweepRecord, artifact_folder: Path | None
    ) -> None:
        """Find the sweep's experiment, or make it, and list what it holds.

        Args:
            client: where.
            sweep: whose experiment.
            artifact_folder: where files go; None leaves that to MLflow's server.
        """
        self._client = client
        self._id = _find_or_create(client, sweep, artifact_folder)
        self.parents: dict[StudyIdentity, Known] = {}
        self.children: dict[ChildIdentity, Known] = {}
        for run in self._runs():
            self._admit(run)

    def _runs(self) -> Iterator[Run]:
        token = None
        while True:
            page = self._client.search_runs([self._id], max_results=PAGE, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _admit(self, run: Run) -> None:
        """Know a run; of two that show the same thing, which a crash can leave, drop one."""
        tags = dict(run.data.tags)
        if "bhnbench.study" not in tags:
            return  # not ours: somebody's notes
        known = Known(run.info.run_id, run.info.status, run.info.end_time, tags)
        identity = _identity(tags)
        if isinstance(identity, ChildIdentity):
            self._keep_best(self.children, identity, known.shorten())
        else:
            known.params, known.metrics = dict(run.data.params), dict(run.data.metrics)
            self._keep_best(self.parents, identity, known)

    def _keep_best(self, runs: dict[T, Known], identity: T, new: Known) -> None:
        old = runs.get(identity)
        if old is not None:
            ranks = {"done": 2, None: 0}
            new, worse = sorted([old, new], key=lambda k: -ranks.get(k.state, 1))
            self._client.delete_run(worse.run_id)
        runs[identity] = new

    def create(self, name: str, start_time: int, tags: Mapping[str, str]) -> Known:
        """A new run, RUNNING until it is finished."""
        run = self._client.create_run(
            self._id, start_time=start_time or None, tags=dict(tags), run_name=name
        )
        return Known(run.info.run_id, tags=dict(tags))

    def log(
        self,
        known: Known,
        *,
        metrics: Sequence[Value] = (),
        time: int,
        params: Mapping[str, str],
        tags: Mapping[str, str],
    ) -> None:
        """Add to a run. Tags come last: they say that the rest has arrived."""
        entries = [Metric(m.name, m.value, time, m.step) for m in metrics]
        batches = list(_batches(entries, MAX_METRICS))
        settings = list(_batches([Param(k, v) for k, v in params.items()], MAX_PARAMS))
        for batch in batches[:-1]:
            self._client.log_batch(known.run_id, metrics=batch)
        for chunk in settings[:-1]:
            self._client.log_batch(known.run_id, params=chunk)
        self._client.log_batch(
            known.run_id,
            metrics=batches[-1] if batches else (),
            params=settings[-1] if settings else (),
            tags=[RunTag(k, v) for k, v in tags.items()],
        )
        known.tags |= tags
        known.params |= params
        known.metrics |= {m.name: m.value for m in metrics}

    def finish(self, known: Known, status: str, end_time: int) -> None:
        """End a run, or say that it goes on."""
        if status == "RUNNING":
            self._client.update_run(known.run_id, status=status)
        else:
            self._client.set_terminated(known.run_id, status=status, end_time=end_time or None)
            known.end_time = end_time
        known.status = status

    def move(self, child: Known, parent: Known) -> None:
        """Put a child under another parent."""
        self._client.set_tag(child.run_id, PARENT, parent.run_id)
        child.tags[PARENT] = parent.run_id

    def log_figure(self, known: Known, figure: Figure, path: str) -> None:
        """Keep a figure with a run."""
        self._client.log_figure(known.run_id, figure, path)

    def delete(self, known: Known) -> None:
        """Take a run out of sight; MLflow's own ``gc`` removes it."""
        self._client.delete_run(known.run_id)


def _find_or_create(client: MlflowClient, sweep: SweepRecord, folder: Path | None) -> str:
    """The experiment of this document.

    It bears the sweep's name, or name and digest where another document of that name, be it
    from another ledger on the same server, was there first.
    """
    mark = digest(sweep.document)
    names = sweep.name, f"{sweep.name}-{mark[:8]}"
    found = {name: client.get_experiment_by_name(name) for name in names}
    for experiment in found.values():
        if experiment is not None and experiment.tags.get("bhnbench.digest") == mark:
            if experiment.lifecycle_stage == "deleted":
                client.restore_experiment(experiment.experiment_id)
            return str(experiment.experiment_id)
    free = [name for name in names if found[name] is None]
    if not free:
        raise BhnbenchError(
            f"MLflow has experiments {names[0]!r} and {names[1]!r} that are not this sweep's; "
            "rename one of them"
        )
    tags = {
        "bhnbench.sweep": sweep.name,
        "bhnbench.digest": mark,
        "mlflow.experimentKind": "custom_model_development",  # MLflow's UI: runs, not traces
    }
    location = (folder / as_file_name(free[0])).absolute().as_uri() if folder else None
    return str(client.create_experiment(free[0], artifact_location=location, tags=tags))


def _identity(tags: Mapping[str, str]) -> StudyIdentity | ChildIdentity:
    study = StudyIdentity(*(tags.get(f"bhnbench.{k}", "") for k in ("study", "task", "method")))
    phase = tags.get("bhnbench.phase")
    if phase is None:
        return study
    number = tags.get("bhnbench.trial" if phase == "search" else "bhnbench.seed", "")
    return ChildIdentity(study, phase, number)


def _batches(entries: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(entries), size):
        yield entries[start : start + size]
