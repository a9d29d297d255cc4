"""What MLflow is to show of a study and of a run: computed from the ledger, without MLflow."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple

from bhnbench.ledger.ledger import Ledger
from bhnbench.ledger.records import RunRecord, StudyRecord, TrialRecord
from bhnbench.runs import Point, RunState
from bhnbench.specs import Phase, StudySpec
from bhnbench.statistics import summarize
from bhnbench.status import StudyStatus

StudyState = Literal["running", "done", "failed", "incomplete"]
STATUS = {
    "running": "RUNNING",
    "done": "FINISHED",
    "failed": "FAILED",
    "pruned": "KILLED",  # a trial that early termination ended
    "incomplete": "KILLED",  # a study whose sweep was interrupted
}
PARENT = "mlflow.parentRunId"
KEY_LENGTH, PARAM_LENGTH, TAG_LENGTH = 250, 6000, 8000  # MLflow refuses more
MAX_POINTS = 1000  # steps of a curve; a picture shows no more
CHUNK = 500  # trials whose runs are read together


class StudyIdentity(NamedTuple):
    """Which study of a sweep a parent shows."""

    study: str
    task: str
    method: str


class ChildIdentity(NamedTuple):
    """Which trial (by number) or evaluation run (by seed) a child shows."""

    study: StudyIdentity
    phase: str
    number: str


class Value(NamedTuple):
    """One value of a metric."""

    name: str
    value: float
    step: int


@dataclass(frozen=True)
class SyncReport:
    """What a comparison of MLflow with the ledger did: studies and runs, counted together."""

    sent: int  # created or repaired
    already: int  # shown as they are


@dataclass(frozen=True)
class Child:
    """A trial or an evaluation run that has ended."""

    study: StudySpec
    run: RunRecord
    trial: TrialRecord | None

    @property
    def phase(self) -> Phase:
        """Which of the two it is."""
        return "evaluate" if self.trial is None else "search"

    @property
    def identity(self) -> ChildIdentity:
        """The same in every rebuild."""
        number = self.run.spec.seed if self.trial is None else self.trial.number
        return ChildIdentity(study_identity(self.study), self.phase, str(number))

    @property
    def state(self) -> RunState:
        """How it ended; a trial stays pruned when another study runs the same run to its end."""
        return self.run.state if self.trial is None else self.trial.state

    @property
    def failure(self) -> str:
        """Class of the failure, or nothing."""
        return (self.run.failure if self.trial is None else self.trial.failure) or ""

    @property
    def name(self) -> str:
        """Its name in MLflow's tables."""
        what = "seed" if self.trial is None else "trial"
        return f"{self.study.labels[1]} {what} {self.identity.number}"

    def tags(self, sweep: str) -> dict[str, str]:
        """All tags but the state, which says that the rest has arrived."""
        tags = study_tags(self.study, sweep) | {
            "bhnbench.run": self.run.key,
            "bhnbench.phase": self.phase,
            "bhnbench.seed": str(self.run.spec.seed),
            "bhnbench.trial": "" if self.trial is None else str(self.trial.number),
            "bhnbench.attempts": str(self.run.attempts),
            "bhnbench.failure": self.failure,
            "bhnbench.message": self.run.message if self.failure else "",
            "bhnbench.warnings": "; ".join(self.run.warnings),
            "mlflow.source.git.commit": _commit(self.run.provenance),
        }
        return {name: value[:TAG_LENGTH] for name, value in tags.items() if value}

    @property
    def params(self) -> dict[str, str]:
        """The full configuration."""
        return to_params(self.run.spec.method.settings)

    def metrics(
        self, points: Sequence[Point], tables: Mapping[str, Mapping[str, Sequence[Any]]]
    ) -> list[Value]:
        """Scores as ``test/accuracy``, so that the curve ``accuracy`` ends where it ends."""
        cost = self.run.cost
        once = {"fit_seconds": cost.fit_seconds, "score_seconds": cost.score_seconds}
        if cost.peak_memory_mb is not None:
            once["peak_memory_mb"] = cost.peak_memory_mb
        if self.state == "done":
            holdout = self.run.spec.holdout
            once |= {f"{holdout}/{name}": value for name, value in self.run.scores.items()}
        values = [Value(name, value, 0) for name, value in once.items()]
        if self.trial is not None and self.trial.last_step is not None:
            points = [point for point in points if point[0] <= self.trial.last_step]
        values += _curves(points)
        if self.state == "done":
            values += _learning_curve(tables.get("learning_curve", {}), points)
        return [value._replace(name=to_key(value.name)) for value in values]


def children_of(ledger: Ledger, record: StudyRecord, status: StudyStatus) -> Iterator[Child]:
    """The trials and evaluation runs of a study that have ended; not all at once in memory."""
    trials = [] if record.id is None else ledger.trials(record.id)
    ended = [t for t in trials if t.number < record.n_trials and t.state != "running"]
    for start in range(0, len(ended), CHUNK):
        chunk = ended[start : start + CHUNK]
        runs = ledger.run_ids({trial.run_id for trial in chunk})
        yield from (Child(status.study, runs[trial.run_id], trial) for trial in chunk)
    children = (Child(status.study, run, None) for run in status.evaluations)
    yield from (child for child in children if child.state != "running")


def study_identity(study: StudySpec) -> StudyIdentity:
    """One document may hold the same study under two labels."""
    return StudyIdentity(study.key, *study.labels)


def study_tags(study: StudySpec, sweep: str) -> dict[str, str]:
    """What parent and children share."""
    return {
        "bhnbench.sweep": sweep,
        "bhnbench.study": study.key,
        "bhnbench.task": study.labels[0],
        "bhnbench.method": study.labels[1],
    }


def study_state(status: StudyStatus) -> StudyState:
    """Where a study stands once its sweep has stopped."""
    if status.n_left:
        return "incomplete"
    return "done" if status.count("done", phase="evaluate") else "failed"


def study_params(status: StudyStatus) -> dict[str, str]:
    """Task settings, and the best configuration once it is frozen: MLflow changes no param."""
    settings = {f"task.{name}": value for name, value in status.study.task.settings.items()}
    frozen = status.search_over and not status.hopeless
    return to_params(settings | dict(status.configuration if frozen else {}))


def study_metrics(status: StudyStatus) -> dict[str, float]:
    """Test scores aggregated over seeds, the best validation score, and the time spent."""
    done = [run for run in status.evaluations if run.state == "done"]
    metrics = {"seconds": status.seconds}
    if status.best is not None and status.best.value is not None:
        metrics[f"validation/{status.study.metric}/best"] = status.best.value
    for metric in done[0].scores if done else ():
        summary = summarize([run.scores[metric] for run in done if metric in run.scores])
        parts = {part: getattr(summary, part) for part in ("mean", "sd", "low", "high", "n")}
        metrics |= {f"test/{metric}/{p}": float(v) for p, v in parts.items() if v is not None}
    return {to_key(name): value for name, value in metrics.items()}


def to_params(settings: Mapping[str, object]) -> dict[str, str]:
    """Settings as MLflow takes them."""
    return {to_key(name): str(value)[:PARAM_LENGTH] for name, value in settings.items()}


def to_key(name: str) -> str:
    """A name as MLflow takes it: a relative path of word characters, dots, spaces, hyphens."""
    parts = re.sub(r"[^\w .:/-]", "_", name).split("/")
    return "/".join(part for part in parts if part.strip("."))[:KEY_LENGTH] or "_"


def to_milliseconds(time: datetime | None) -> int:
    """A time as MLflow takes it."""
    return int(time.timestamp() * 1000) if time else 0


def _commit(provenance: Mapping[str, Any]) -> str:
    method = provenance.get("plugins", {}).get("method", {})
    return (method.get("git") or {}).get("commit", "")  # type: ignore[no-any-return]


def _curves(points: Sequence[Point]) -> Iterator[Value]:
    """Of each metric, which need not be in every report."""
    for name in dict.fromkeys(name for _, metrics in points for name in metrics):
        curve = [Value(name, metrics[name], step) for step, metrics in points if name in metrics]
        stride = -(-len(curve) // MAX_POINTS)
        yield from curve[:-1:stride]
        yield curve[-1]


def _learning_curve(
    table: Mapping[str, Sequence[Any]], points: Sequence[Point]
) -> Iterator[Value]:
    """Against the number of labels; by row only what the points do not already show."""
    labels = table.get("n_labels")
    reported = {name for _, metrics in points for name in metrics}
    for column, values in table.items():
        if column == "n_labels" or (labels is None and column in reported):
            continue
        for row, value in enumerate(values):
            if isinstance(value, int | float):
                step = row if labels is None else int(labels[row])
                yield Value(f"learning_curve/{column}", float(value), step)
