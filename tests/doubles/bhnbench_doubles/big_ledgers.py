"""Ledgers of a laboratory's years: rows as drivers write them, in bulk; nothing is executed."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import create_engine, insert, text

from bhnbench.ledger.ledger import Ledger
from bhnbench.ledger.models import Base, PointRow, RunRow, ScoreRow, TrialRow
from bhnbench.ledger.records import StudyRecord, SweepRecord
from bhnbench.provenance import provenance_of
from bhnbench.selection import best_trial
from bhnbench.space import Choice, Int, Space, Value
from bhnbench.specs import RunSpec, digest, run_to_json
from bhnbench.sweep.document import read_sweep

METHODS = (
    "maximum_likelihood", "dropout", "mc_dropout", "deep_ensemble", "snapshot_ensemble", "sgld",
    "cyclical_sghmc", "bayes_by_backprop", "bayes_by_hypernet", "variational_dropout",
    "multiplicative_normalizing_flow", "sparse_variational_dropout", "bayesian_hypernet",
    "laplace", "distilled",
)  # fmt: skip
ENDS = ("done", "pruned", "diverged", "error")  # of trials
SHARES = (0.93, 0.04, 0.02, 0.01)
BATCH = 5000


@dataclass(frozen=True)
class Size:
    """How much: the big sweep's studies are tasks x 15 methods."""

    tasks: int = 10
    trials: int = 600  # a study
    seeds: int = 10
    small_sweeps: int = 60  # of 1 task x 5 methods, with 30 trials and 5 seeds a study
    metrics: int = 11  # of a run that is done
    points: int = 10  # of any run


def documents(size: Size) -> Iterator[dict[str, Any]]:
    """The sweep files, the big one last: it is the one that commands show unasked."""
    for number in range(size.small_sweeps):
        yield _document(f"small-{number}", [1000 + number], METHODS[number % 11 :][:5], 30, 5)
    yield big_document(size)


def big_document(size: Size) -> dict[str, Any]:
    """The sweep that has most of the runs."""
    return _document("big", range(1, size.tasks + 1), METHODS, size.trials, size.seeds)


def _document(
    name: str, epochs: Sequence[int], methods: Sequence[str], trials: int, seeds: int
) -> dict[str, Any]:
    """Tasks differ in their epochs."""
    return {
        "name": name,
        "tasks": [
            {"name": "digit_classification", "label": f"digits-{n}", "epochs": n} for n in epochs
        ],
        "methods": list(methods),
        "search": {"sampler": "random", "trials": trials},
        "evaluate": {"seeds": seeds},
    }


def record(ledger: Ledger, document: Mapping[str, Any]) -> SweepRecord:
    """The sweep, as its driver notes it before the first run."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sweep.yaml"
        path.write_text(json.dumps(document))
        return ledger.record_sweep(read_sweep(path))


def fill(address: str, size: Size, share: float = 1.0) -> None:
    """Make a ledger; of the big sweep, only this share of each study's trials."""
    rows = _Rows(address, size)
    with Ledger(address, create=True) as ledger:
        for document in documents(size):
            sweep = record(ledger, document)
            for study in sweep.studies:
                rows.add_study(study, sweep.n_seeds, share if sweep.name == "big" else 1.0)
            rows.flush()
            ledger.finish_sweep(sweep.id)
    rows.close()


class _Rows:
    """Keeps rows until there are enough for one statement."""

    def __init__(self, address: str, size: Size) -> None:
        self._engine = create_engine(address)
        self._size = size
        self._rng = np.random.default_rng(0)
        self._run_id = 0
        self._clock = datetime(2026, 1, 1, tzinfo=UTC)
        self._waiting: dict[type[Base], list[dict[str, Any]]] = {}

    def add_study(self, study: StudyRecord, n_seeds: int, share: float) -> None:
        """The trials of a study, then the evaluation of the best."""
        trials = []
        for number in range(int(share * study.n_trials)):
            space = study.spec.space if number else {}
            configuration = {name: self._draw(s) for name, s in space.items()}
            run, value = self._add_run(study.spec.search_run(configuration))
            trials.append(_Trial(study.id or 0, number, configuration, run, value))
        self._waiting.setdefault(TrialRow, []).extend(trial.row for trial in trials)
        best = best_trial(trials, study.spec.direction)
        if len(trials) == study.n_trials and (best is not None or not trials):
            for seed in range(1, n_seeds + 1):
                configuration = best.configuration if best else {}
                self._add_run(study.spec.run(configuration, "evaluate", seed))
        if len(self._waiting.get(RunRow, ())) >= BATCH:
            self.flush()

    def _add_run(self, spec: RunSpec) -> tuple[dict[str, Any], float | None]:
        self._run_id += 1
        self._clock += timedelta(seconds=30)
        end = str(self._rng.choice(ENDS, p=SHARES)) if spec.phase == "search" else "done"
        failed = end in ("diverged", "error")
        run = {
            "id": self._run_id,
            "key": spec.key,
            "task_name": spec.task.name,
            "task_key": digest(spec.task.identity),
            "method_name": spec.method.name,
            "spec": run_to_json(spec),
            "state": "failed" if failed else end,
            "failure": end if failed else None,
            "message": "loss must be finite, but is nan at step 3" if failed else "",
            "attempts": 1,
            "started_at": self._clock,
            "finished_at": self._clock + timedelta(seconds=20),
            "fit_seconds": float(self._rng.uniform(5, 15)),
            "score_seconds": float(self._rng.uniform(0, 5)),
            "peak_memory_mb": 500.0,
            "warnings": ["the posterior has collapsed"] if self._run_id % 1000 == 0 else [],
            "provenance": provenance_of(spec, "cpu", 1),
        }
        self._waiting.setdefault(RunRow, []).append(run)
        self._add_points()
        return run, self._add_scores() if end == "done" else None

    def _add_scores(self) -> float:
        values = self._rng.normal(0.9, 0.02, self._size.metrics).tolist()
        names = ["accuracy", *(f"metric_{n}" for n in range(1, self._size.metrics))]
        self._waiting.setdefault(ScoreRow, []).extend(
            {"run_id": self._run_id, "metric": name, "value": value}
            for name, value in zip(names, values, strict=True)
        )
        return float(values[0])

    def _add_points(self) -> None:
        self._waiting.setdefault(PointRow, []).extend(
            {"run_id": self._run_id, "step": step, "metric": "accuracy", "value": step / 20}
            for step in range(1, self._size.points + 1)
        )

    def _draw(self, space: Space) -> Value:
        if isinstance(space, Choice):
            return space.values[self._rng.integers(len(space.values))]
        if isinstance(space, Int):
            return int(self._rng.integers(space.low, space.high + 1))
        return float(self._rng.uniform(space.low, space.high))

    def flush(self) -> None:
        """Write what has come together."""
        with self._engine.begin() as connection:
            for model in (RunRow, TrialRow, ScoreRow, PointRow):
                rows = self._waiting.pop(model, [])
                for start in range(0, len(rows), BATCH):
                    connection.execute(insert(model), rows[start : start + BATCH])

    def close(self) -> None:
        """Let the database look at what it has got, as PostgreSQL does by itself after a while."""
        if self._engine.dialect.name == "postgresql":
            with self._engine.connect() as connection:
                connection.execution_options(isolation_level="AUTOCOMMIT")
                connection.execute(text("VACUUM ANALYZE runs, trials, scores, points"))
        self._engine.dispose()


@dataclass(frozen=True)
class _Trial:
    study_id: int
    number: int
    configuration: Mapping[str, Value]
    run: Mapping[str, Any]
    value: float | None

    @property
    def state(self) -> str:
        return str(self.run["state"])

    @property
    def row(self) -> dict[str, Any]:
        return {
            "study_id": self.study_id, "number": self.number, "run_id": self.run["id"],
            "configuration": dict(self.configuration), "state": self.state,
            "failure": self.run["failure"], "value": self.value, "last_step": None,
        }  # fmt: skip
