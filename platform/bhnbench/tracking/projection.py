"""Brings MLflow's picture of a sweep up to the ledger: the same for a live sweep and for sync."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from bhnbench.ledger.ledger import Ledger
from bhnbench.ledger.records import StudyRecord, SweepRecord
from bhnbench.specs import StudySpec
from bhnbench.status import StudyStatus, study_statuses
from bhnbench.tracking.client import close_client, is_database, open_client
from bhnbench.tracking.content import (
    PARENT,
    STATUS,
    Child,
    StudyState,
    SyncReport,
    Value,
    children_of,
    study_identity,
    study_metrics,
    study_params,
    study_state,
    study_tags,
    to_milliseconds,
)  # fmt: skip
from bhnbench.tracking.experiment import Experiment, Known
from bhnbench.tracking.figures import DrawFigures, send_figures


class Projection:
    """One sweep in MLflow."""

    def __init__(
        self,
        ledger: Ledger,
        sweep: SweepRecord,
        uri: str,
        artifact_folder: Path,
        draw: DrawFigures | None,
    ) -> None:
        self._ledger = ledger
        self._sweep = sweep
        self._uri = uri
        self._draw = draw
        folder = artifact_folder if is_database(uri) else None
        try:
            self._experiment = Experiment(open_client(uri), sweep, folder)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of MLflow's database."""
        close_client(self._uri)

    def send_run(self, position: int, key: str) -> None:
        """Show a run that has just landed, as every trial of the study that it serves."""
        record = self._sweep.studies[position]
        for child in self._children(record, key):
            self._ensure_child(child)

    def update_study(self, position: int) -> None:
        """Bring a study's summary up to date while its sweep goes on."""
        record = self._sweep.studies[position]
        status = study_statuses(self._ledger, [record], self._sweep.n_seeds)[0]
        self._ensure_study(record, status, "running")

    def reconcile(self) -> SyncReport:
        """Send what is missing and repair what differs; leaves nothing RUNNING."""
        changes: list[bool] = []
        statuses = study_statuses(self._ledger, self._sweep.studies, self._sweep.n_seeds)
        for record, status in zip(self._sweep.studies, statuses, strict=True):
            if status.n_ended:
                self._ensure_parent(status.study, to_milliseconds(status.started_at))
            children = children_of(self._ledger, record, status)
            changes += [self._ensure_child(child) for child in children]
            if status.n_ended or study_identity(status.study) in self._experiment.parents:
                changes.append(self._ensure_study(record, status, study_state(status)))
        if self._draw is not None:
            send_figures(self._experiment, self._sweep, statuses, self._draw)
        return SyncReport(sent=sum(changes), already=len(changes) - sum(changes))

    def _children(self, record: StudyRecord, key: str) -> Iterator[Child]:
        run = self._ledger.runs([key])[key]
        if run.spec.phase == "evaluate":
            yield Child(record.spec, run, None)
        elif record.id is not None:
            for trial in self._ledger.trials(record.id, run.id):
                if trial.number < record.n_trials and trial.state != "running":
                    yield Child(record.spec, run, trial)

    # --- children -------------------------------------------------------------------------

    def _ensure_child(self, child: Child) -> bool:
        """Show a child as the ledger has it; returns whether that took anything."""
        known = self._experiment.children.get(child.identity)
        parent = self._ensure_parent(child.study, to_milliseconds(child.run.started_at))
        if known is None or not _shows(known, child):
            self._send_child(child, parent, known)
            return True
        changed = False
        if known.tags.get(PARENT) != parent.run_id:
            self._experiment.move(known, parent)
            changed = True
        status = STATUS[known.state or child.state]
        if known.status != status:
            self._experiment.finish(known, status, to_milliseconds(child.run.finished_at))
            changed = True
        return changed

    def _send_child(self, child: Child, parent: Known, known: Known | None) -> None:
        tags = child.tags(self._sweep.name) | {PARENT: parent.run_id}
        if known is not None and not _begun(known, child):
            self._experiment.delete(known)  # an earlier attempt; params and times cannot change
            known = None
        if known is None:
            start = to_milliseconds(child.run.started_at)
            known = self._experiment.create(child.name, start, tags)
            self._experiment.children[child.identity] = known
        end = to_milliseconds(child.run.finished_at)
        metrics = child.metrics(
            self._ledger.points(child.run.id), self._ledger.tables(child.run.id)
        )
        state = {"bhnbench.state": child.state, PARENT: parent.run_id}
        self._experiment.log(known, metrics=metrics, time=end, params=child.params, tags=state)
        self._experiment.finish(known, STATUS[child.state], end)
        known.shorten()

    # --- parents --------------------------------------------------------------------------

    def _ensure_parent(self, study: StudySpec, start: int) -> Known:
        known = self._experiment.parents.get(study_identity(study))
        if known is None:
            task, method = study.labels
            tags = study_tags(study, self._sweep.name) | {
                "bhnbench.metric": study.metric,
                "bhnbench.direction": study.direction,
            }
            known = self._experiment.create(f"{method} on {task}", start, tags)
            self._experiment.parents[study_identity(study)] = known
        return known

    def _ensure_study(self, record: StudyRecord, status: StudyStatus, state: StudyState) -> bool:
        """Show a study as the ledger has it; returns whether that took anything."""
        start, end = to_milliseconds(status.started_at), to_milliseconds(status.finished_at)
        params = study_params(status)
        known = self._ensure_parent(status.study, start)
        if any(known.params.get(name, value) != value for name, value in params.items()):
            self._experiment.delete(known)  # MLflow changes no param
            del self._experiment.parents[study_identity(status.study)]
            known = self._ensure_parent(status.study, start)
            for child in children_of(self._ledger, record, status):
                self._ensure_child(child)
        changed = self._update(known, params, study_metrics(status), state)
        over = state != "running"
        if known.status != STATUS[state] or (over and known.end_time != end):
            self._experiment.finish(known, STATUS[state], end)
            changed = True
        return changed

    def _update(
        self, known: Known, params: dict[str, str], metrics: dict[str, float], state: StudyState
    ) -> bool:
        params = {name: value for name, value in params.items() if name not in known.params}
        values = [Value(k, v, 0) for k, v in metrics.items() if known.metrics.get(k) != v]
        if not params and not values and known.state == state:
            return False
        now = int(time.time() * 1000)  # the latest value of a step is the one that counts
        tags = {"bhnbench.state": state}
        self._experiment.log(known, metrics=values, time=now, params=params, tags=tags)
        return True


def _shows(known: Known, child: Child) -> bool:
    """Whether a child is there as the ledger has it. What is done is never done again."""
    if known.state is None or known.tags.get("bhnbench.run") != child.run.key:
        return False
    return known.state == "done" or (
        known.state == child.state
        and known.tags.get("bhnbench.failure", "") == child.failure
        and (child.state == "pruned" or known.tags.get("bhnbench.attempts") == _attempts(child))
    )


def _begun(known: Known, child: Child) -> bool:
    """Whether the same attempt was being sent; sending it again changes nothing that is there."""
    tags = known.tags
    same_run = tags.get("bhnbench.run") == child.run.key
    return known.state is None and same_run and tags.get("bhnbench.attempts") == _attempts(child)


def _attempts(child: Child) -> str:
    return str(child.run.attempts)
