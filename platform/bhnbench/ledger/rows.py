"""From rows to records and back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

from sqlalchemy import Row, delete, func, select
from sqlalchemy.orm import Session

from bhnbench.ledger.models import (
    PointRow,
    ScoreRow,
    StudyRow,
    SweepRow,
    SweepStudyRow,
    TableRow,
    TrialRow,
)  # fmt: skip
from bhnbench.ledger.records import (
    RunRecord,
    StudyRecord,
    SweepRecord,
    TrialRecord,
    TrialRef,
)  # fmt: skip
from bhnbench.runs import Cost, RunResult, RunState
from bhnbench.specs import run_from_json, study_from_json


def ensure_study(session: Session, key: str, spec: dict[str, Any]) -> int:
    """The id of the study, which is inserted where it is new."""
    row = session.scalar(select(StudyRow).filter_by(key=key))
    if row is None:
        row = StudyRow(key=key, spec=spec)
        session.add(row)
        session.flush()
    return row.id


def put_trial(
    session: Session,
    trial: TrialRef,
    run_id: int,
    result: RunResult,
    value: float | None,
) -> None:
    """Insert or replace a trial."""
    last_step = max((step for step, _ in result.points), default=None)
    session.merge(
        TrialRow(
            study_id=trial.study_id,
            number=trial.number,
            run_id=run_id,
            configuration=dict(trial.configuration),
            state=result.state,
            failure=result.failure,
            value=value,
            last_step=last_step,
        )
    )


def put_results(session: Session, run_id: int, result: RunResult) -> None:
    """Replace a run's scores, points and tables."""
    for model in (ScoreRow, TableRow):
        session.execute(delete(model).filter_by(run_id=run_id))
    _put_points(session, run_id, result)
    if result.outcome is None:
        return
    scores = result.outcome.scores.items()
    session.add_all(ScoreRow(run_id=run_id, metric=name, value=value) for name, value in scores)
    for name, table in result.outcome.tables.items():
        columns = {column: _plain(values) for column, values in table.items()}
        session.add(TableRow(run_id=run_id, name=name, columns=columns))


def _put_points(session: Session, run_id: int, result: RunResult) -> None:
    """Replace a run's points, unless an earlier attempt got further.

    A study that stopped the run early keeps the reports by which it did so.
    """
    reached = session.scalar(select(func.max(PointRow.step)).filter_by(run_id=run_id))
    if reached is not None and reached > max((step for step, _ in result.points), default=0):
        return
    session.execute(delete(PointRow).filter_by(run_id=run_id))
    points = {
        (step, metric): value
        for step, metrics in result.points
        for metric, value in metrics.items()
        if math.isfinite(value)
    }
    session.add_all(
        PointRow(run_id=run_id, step=step, metric=metric, value=value)
        for (step, metric), value in points.items()
    )


def _plain(values: Any) -> list[Any]:  # noqa: ANN401 - an array of anything
    """A list for JSON, which knows no NaN."""
    items = values.tolist() if hasattr(values, "tolist") else list(values)
    return [None if isinstance(v, float) and not math.isfinite(v) else v for v in items]


def sweep_record(session: Session, row: SweepRow) -> SweepRecord:
    """A sweep with its studies."""
    query = (
        select(SweepStudyRow, StudyRow)
        .join(StudyRow, StudyRow.id == SweepStudyRow.study_id)
        .where(SweepStudyRow.sweep_id == row.id)
        .order_by(SweepStudyRow.position)
    )
    studies = [
        StudyRecord(
            id=study.id,
            spec=study_from_json(study.spec, (place.task_label, place.method_label)),
            n_trials=place.n_trials,
        )
        for place, study in session.execute(query)
    ]
    return SweepRecord(
        id=row.id,
        name=row.name,
        document=row.document,
        n_seeds=row.n_seeds,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        studies=studies,
    )


def trial_record(row: Row[Any]) -> TrialRecord:
    """A trial, from a row of its columns: whole objects would cost three times as much."""
    return TrialRecord(
        number=row.number,
        configuration=row.configuration,
        state=cast("RunState", row.state),
        failure=row.failure,
        value=row.value,
        last_step=row.last_step,
        run_id=row.run_id,
    )


def run_records(session: Session, rows: Sequence[Row[Any]]) -> list[RunRecord]:
    """Runs with their scores, from rows of their columns."""
    scores: dict[int, dict[str, float]] = {row.id: {} for row in rows}
    columns = ScoreRow.run_id, ScoreRow.metric, ScoreRow.value
    query = select(*columns).where(ScoreRow.run_id.in_(scores))
    for run_id, metric, value in session.execute(query):
        scores[run_id][metric] = value
    return [_run_record(row, scores[row.id]) for row in rows]


def _run_record(row: Row[Any], scores: Mapping[str, float]) -> RunRecord:
    return RunRecord(
        id=row.id,
        key=row.key,
        spec=run_from_json(row.spec),
        state=cast("RunState", row.state),
        failure=row.failure,
        message=row.message,
        attempts=row.attempts,
        warnings=row.warnings,
        cost=Cost(row.fit_seconds or 0.0, row.score_seconds or 0.0, row.peak_memory_mb),
        started_at=row.started_at,
        finished_at=row.finished_at,
        provenance=row.provenance,
        scores=scores,
    )
