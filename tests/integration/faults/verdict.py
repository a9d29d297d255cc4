"""What must hold after a sweep that faults have hit, and what was seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, NamedTuple

from bhnbench_doubles.paced import Note, name_of

from bhnbench.ledger.records import RunRecord
from bhnbench.tracking.client import close_client, open_client
from tests.integration.cluster.ledgers import SweptStudy
from tests.integration.faults.audit import Change


class Law(NamedTuple):
    """One of them."""

    text: str
    broken: Sequence[object]  # by what


@dataclass(frozen=True)
class Evidence:
    """All that is known of a sweep in the end."""

    studies: Sequence[SweptStudy]
    changes: Mapping[str, Sequence[Change]]  # of runs, as the database noted them
    notes: Sequence[Note]  # as the runs made them
    shown: Sequence[tuple[object, ...]]  # by MLflow
    calm: Sequence[SweptStudy]  # of the same sweep on one machine, where nothing went wrong
    determined: bool  # whether the search must try the same configurations

    @property
    def runs(self) -> dict[str, RunRecord]:
        """By key."""
        return {run.key: run for study in self.studies for run in study.runs}

    def done_at(self) -> dict[str, float]:
        """When each run was first done, by the name that it calls itself."""
        names = {key: name_of(run.spec) for key, run in self.runs.items()}
        return {
            names[key]: min(change.time for change in changes if change.after == "done")
            for key, changes in self.changes.items()
            if key in names and any(change.after == "done" for change in changes)
        }


def laws(evidence: Evidence) -> Iterator[Law]:
    """What must hold."""
    yield Law("every planned run is done", _not_done(evidence))
    yield Law("no run is done twice", _done_twice(evidence))
    yield Law("no run begins more often than it was handed out", _begun_too_often(evidence))
    yield Law("MLflow shows what the ledger has", _shown_wrongly(evidence))
    yield Law("the scores are those of one calm machine", _other_scores(evidence))
    if evidence.determined:
        yield Law("the search tried what it tries on a calm machine", _other_trials(evidence))


def _not_done(evidence: Evidence) -> list[object]:
    left = [(s.labels, s.status.n_left) for s in evidence.studies if s.status.n_left]
    return [*left, *(r.key for r in evidence.runs.values() if r.state != "done")]


def _done_twice(evidence: Evidence) -> list[object]:
    found: list[object] = []
    for key, changes in evidence.changes.items():
        n_done = sum(change.after == "done" for change in changes)
        undone = [change for change in changes if change.before == "done"]
        if n_done > 1 or undone:
            found.append((key, n_done, undone))
    return found


def _begun_too_often(evidence: Evidence) -> list[object]:
    attempts = {name_of(run.spec): run.attempts for run in evidence.runs.values()}
    began = Counter(note.run for note in evidence.notes if note.what == "began")
    return [(run, count) for run, count in began.items() if count > attempts.get(run, 0)]


def _begun_late(evidence: Evidence) -> list[Note]:
    """By hosts that were cut off when they were to begin, so that others did it meanwhile."""
    done_at = evidence.done_at()
    began = [note for note in evidence.notes if note.what == "began"]
    return [note for note in began if note.run in done_at and note.time > done_at[note.run]]


def _shown_wrongly(evidence: Evidence) -> list[object]:
    expected, shown = Counter(expected_in_mlflow(evidence.studies)), Counter(evidence.shown)
    return [*((row, "missing") for row in expected - shown),
            *((row, "too much") for row in shown - expected)]  # fmt: skip


def _other_scores(evidence: Evidence) -> list[object]:
    runs = evidence.runs
    calm = {run.key: run for study in evidence.calm for run in study.runs}
    common = runs.keys() & calm.keys()
    wrong = [key for key in common if runs[key].scores != calm[key].scores]
    return [*wrong, *([] if common else ["no run in common"])]


def _other_trials(evidence: Evidence) -> list[object]:
    def tried(studies: Sequence[SweptStudy]) -> list[tuple[object, ...]]:
        return [(s.labels, t.number, t.configuration) for s in studies for t in s.trials]

    pairs = zip_longest(tried(evidence.studies), tried(evidence.calm))
    return [pair for pair in pairs if pair[0] != pair[1]]


def counts(evidence: Evidence) -> dict[str, int]:
    """How much was done, and how much more than once."""
    began = Counter(note.run for note in evidence.notes if note.what == "began")
    ended = Counter(note.run for note in evidence.notes if note.what == "ended")
    return {
        "runs": len(evidence.runs),
        "executions begun": began.total(),
        "executions ended": ended.total(),
        "runs executed more than once": sum(count > 1 for count in began.values()),
        "runs whose result was lost on its way": sum(count > 1 for count in ended.values()),
        "executions begun once the run was done": len(_begun_late(evidence)),
        "attempts in the ledger": sum(run.attempts for run in evidence.runs.values()),
        "children in MLflow": len(evidence.shown),
    }


def expected_in_mlflow(studies: Sequence[SweptStudy]) -> Iterator[tuple[object, ...]]:
    """A row for every trial and every evaluation run, as MLflow must show it."""
    for study in studies:
        method = study.labels[1]
        for trial, run in zip(study.trials, study.trial_runs, strict=True):
            yield method, "search", str(trial.number), "FINISHED", *run.scores.values()
        for run in study.evaluations:
            yield method, "evaluate", str(run.spec.seed), "FINISHED", *run.scores.values()


def shown_in_mlflow(store: str, experiment: str) -> list[tuple[object, ...]]:
    """The rows that it shows."""
    client = open_client(store)
    try:
        found = client.get_experiment_by_name(experiment)
        return [_row(run) for run in _all_runs(client, found.experiment_id) if _is_child(run)]
    finally:
        close_client(store)


def _all_runs(client: Any, experiment: str) -> Iterator[Any]:
    token = None
    while True:
        page = client.search_runs([experiment], max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _is_child(run: Any) -> bool:
    return "mlflow.parentRunId" in run.data.tags


def _row(run: Any) -> tuple[object, ...]:
    tags = {name.removeprefix("bhnbench."): value for name, value in run.data.tags.items()}
    holdout, number = ("test", "seed") if tags["phase"] == "evaluate" else ("validation", "trial")
    score = run.data.metrics.get(f"{holdout}/closeness")
    return tags["method"], tags["phase"], tags[number], run.info.status, score
