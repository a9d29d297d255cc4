"""Which runs belong to which studies: their trials', and the evaluations of what they tried."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import Connection, Select, select

from bhnbench.ledger.models import RunRow, StudyRow, SweepStudyRow, TrialRow
from bhnbench.specs import StudySpec, digest, run_from_json, study_from_json

CHUNK = 500  # values a query; SQLite admits a limited number of parameters

T = TypeVar("T")


def chunks(values: Iterable[T], size: int = CHUNK) -> Iterator[list[T]]:
    """The values, some at a time."""
    left = iter(values)
    while chunk := list(islice(left, size)):
        yield chunk


def where_in(
    connection: Connection,
    query: Select[*tuple[Any, ...]],
    column: Any,  # noqa: ANN401 - of a model
    values: Iterable[object],
) -> Iterator[Any]:
    """The rows of a query whose column is one of many values."""
    for chunk in chunks(values):
        yield from connection.execute(query.where(column.in_(chunk)))


def studies_of(connection: Connection, sweep_ids: Collection[int]) -> set[int]:
    """The studies of sweeps."""
    query = select(SweepStudyRow.study_id)
    return {row[0] for row in where_in(connection, query, SweepStudyRow.sweep_id, sweep_ids)}


def runs_of(connection: Connection, study_ids: Collection[int]) -> set[int]:
    """The runs of studies: of their trials, and of any seed of a configuration that they tried."""
    trials = select(TrialRow.study_id, TrialRow.run_id, TrialRow.configuration)
    tried: dict[int, dict[str, Any]] = {study_id: {} for study_id in study_ids}
    found = set()
    for study_id, run_id, configuration in where_in(
        connection, trials, TrialRow.study_id, study_ids
    ):
        found.add(run_id)
        tried[study_id][digest(configuration)] = configuration
    studies = select(StudyRow.id, StudyRow.spec)
    specs = {
        row.id: study_from_json(row.spec, ("", ""))
        for row in where_in(connection, studies, StudyRow.id, study_ids)
    }
    return found | _evaluations(
        connection,
        [(spec, [*tried[study_id].values()] or [{}]) for study_id, spec in specs.items()],
    )


def _evaluations(
    connection: Connection, tried: Sequence[tuple[StudySpec, Sequence[Any]]]
) -> set[int]:
    """The evaluation runs of these studies and configurations, whatever their seed."""
    keys = {study.run(c, "evaluate", 1).key for study, cs in tried for c in cs}
    kinds = {(digest(study.task.identity), study.method.name) for study, _ in tried}
    found = set()
    for task_key, method_name in kinds:
        query = select(RunRow.id, RunRow.spec)
        query = query.filter_by(task_key=task_key, method_name=method_name)
        for run_id, content in connection.execute(query):
            spec = run_from_json(content)
            if spec.phase == "evaluate" and replace(spec, seed=1).key in keys:
                found.add(run_id)
    return found
