"""What the database counts of many trials, so that nobody reads 10^5 rows to say how many."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from bhnbench.contract import Direction
from bhnbench.ledger.models import RunRow, StudyRow, TrialRow
from bhnbench.ledger.records import (
    LEFT_RUNNING,
    FailedRun,
    StudyRecord,
    Tally,
    TrialRecord,
    WarnedRun,
)  # fmt: skip
from bhnbench.ledger.rows import trial_record
from bhnbench.specs import SEARCH_SEED

INTERRUPTED = ("failed", "interrupted")
CHUNK = 500  # studies a query; SQLite admits a limited number of parameters


@dataclass(frozen=True)
class _Group:
    """Studies that one query can answer for: of each, the first trials."""

    n_trials: int
    direction: Direction
    ids: Sequence[int]

    @property
    def trials(self) -> tuple[ColumnElement[bool], ...]:
        return TrialRow.study_id.in_(self.ids), TrialRow.number < self.n_trials


def _groups(studies: Sequence[StudyRecord]) -> Iterator[_Group]:
    together: dict[tuple[int, Direction], dict[int, None]] = defaultdict(dict)
    for study in studies:
        if study.id is not None and study.n_trials:
            together[study.n_trials, study.spec.direction][study.id] = None
    for (n_trials, direction), members in together.items():
        ids = list(members)
        for start in range(0, len(ids), CHUNK):
            yield _Group(n_trials, direction, ids[start : start + CHUNK])


def tallies(
    session: Session, studies: Sequence[StudyRecord], live: Collection[int | None]
) -> dict[int, Tally]:
    """By study's id; studies without a trial are left out.

    Args:
        session: a transaction.
        studies: which, and how many of their trials.
        live: the drivers that may be at work. What others left running reads as interrupted.
    """
    found: dict[int, Tally] = {}
    for group in _groups(studies):
        drivers = select(StudyRow.id, StudyRow.driver_id).where(StudyRow.id.in_(group.ids))
        left = {study_id for study_id, driver in session.execute(drivers) if driver not in live}
        ends, spent = _ends(session, group, left), _spent(session, group)
        failed, best = _failed(session, group, left, live), _best(session, group)
        for study_id in ends:
            found[study_id] = Tally(
                ends=ends[study_id],
                best=best.get(study_id),
                failed=failed.get(study_id, ()),
                **spent[study_id],
            )
    return found


def _ends(
    session: Session, group: _Group, left: Collection[int]
) -> Mapping[int, Mapping[tuple[str, str | None], int]]:
    kinds = TrialRow.study_id, TrialRow.state, TrialRow.failure
    query = select(*kinds, func.count()).where(*group.trials).group_by(*kinds)
    found: dict[int, dict[tuple[str, str | None], int]] = defaultdict(lambda: defaultdict(int))
    for study_id, state, failure, n in session.execute(query):
        end = (state, failure)
        found[study_id][INTERRUPTED if state == "running" and study_id in left else end] += n
    return found


def _spent(session: Session, group: _Group) -> dict[int, dict[str, Any]]:
    served = select(TrialRow.study_id, TrialRow.run_id).where(*group.trials).distinct().subquery()
    query = (
        select(
            served.c.study_id,
            func.count().label("n_runs"),
            func.coalesce(func.sum(RunRow.fit_seconds + RunRow.score_seconds), 0.0).label(
                "seconds"
            ),
            func.min(RunRow.started_at).label("started_at"),
            func.max(RunRow.finished_at).label("finished_at"),
        )
        .join(RunRow, RunRow.id == served.c.run_id)
        .group_by(served.c.study_id)
    )
    rows = [dict(row) for row in session.execute(query).mappings()]
    return {row.pop("study_id"): row for row in rows}


def _failed(
    session: Session, group: _Group, left: Collection[int], live: Collection[int | None]
) -> dict[int, list[FailedRun]]:
    """A run that only another study's retry failed is none of this one's."""
    states = ("failed", "running")
    columns = RunRow.id, RunRow.state, RunRow.failure, RunRow.message, RunRow.driver_id
    query = (
        select(TrialRow.study_id, TrialRow.state.label("trial_state"), *columns)
        .join(RunRow, RunRow.id == TrialRow.run_id)
        .where(*group.trials, TrialRow.state.in_(states), RunRow.state.in_(states))
        .order_by(TrialRow.study_id, TrialRow.number)
    )
    found: dict[int, list[FailedRun]] = defaultdict(list)
    for row in session.execute(query):
        failure, message = row.failure, row.message
        if row.state == "running":
            failure, message = INTERRUPTED[1], LEFT_RUNNING
        under_way = row.trial_state == "running" and row.study_id not in left
        if not under_way and (row.state == "failed" or row.driver_id not in live):
            found[row.study_id].append(FailedRun(row.id, "search", SEARCH_SEED, failure, message))
    return found


def _best(session: Session, group: _Group) -> dict[int, TrialRecord]:
    """By the rule of ``selection.best_trial``; the index on the values leads straight to them."""
    value = TrialRow.value
    best = (
        select(TrialRow.number)
        .where(
            TrialRow.study_id == StudyRow.id,
            TrialRow.state == "done",
            value.is_not(None),
            TrialRow.number < group.n_trials,
        )
        .order_by(value.desc() if group.direction == "maximize" else value, TrialRow.number)
        .limit(1)
        .correlate(StudyRow)
        .scalar_subquery()
    )
    chosen = select(StudyRow.id, best.label("number")).where(StudyRow.id.in_(group.ids)).subquery()
    query = select(TrialRow.__table__).join(
        chosen, (TrialRow.study_id == chosen.c.id) & (TrialRow.number == chosen.c.number)
    )
    return {row.study_id: trial_record(row) for row in session.execute(query)}


def warned_trial_runs(
    session: Session, studies: Sequence[StudyRecord]
) -> dict[int, list[WarnedRun]]:
    """By study's id, the runs of its trials that carry warnings, each once."""
    found: dict[int, list[WarnedRun]] = {}
    for group in _groups(studies):
        query = (
            select(TrialRow.study_id, RunRow.id, RunRow.warnings)
            .join(RunRow, RunRow.id == TrialRow.run_id)
            .where(*group.trials, func.json_array_length(RunRow.warnings) > 0)
            .order_by(TrialRow.study_id, TrialRow.number)
        )
        by_study: dict[int, dict[int, WarnedRun]] = defaultdict(dict)
        for study_id, run_id, texts in session.execute(query):
            by_study[study_id][run_id] = WarnedRun(run_id, "search", SEARCH_SEED, texts)
        found |= {study_id: list(runs.values()) for study_id, runs in by_study.items()}
    return found
