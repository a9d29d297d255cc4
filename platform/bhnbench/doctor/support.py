"""Whether each method says it can do each task's problem, as a run would ask it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NoReturn

from bhnbench.contract import Predictive, Problem, Report
from bhnbench.doctor.data import missing, names_of
from bhnbench.findings import Verdict, failed, ok, skipped, warning
from bhnbench.runner import describe, load_method, load_task
from bhnbench.seeds import make_rng
from bhnbench.specs import PluginSpec, StudySpec
from bhnbench.sweep.document import Sweep
from bhnbench.words import counted

SECONDS = 20.0  # for all studies; what is left over, the sweep finds out itself


def supported(sweep: Sweep) -> Verdict:
    """Studies that cannot be done are warned of: the others of the sweep can."""
    until = time.monotonic() + SECONDS
    problems: dict[str, Problem | None] = {}
    reasons: list[str | None] = []
    for study in sweep.studies:
        if time.monotonic() > until:
            break
        task = study.labels[0]
        if task not in problems:
            problems[task] = first_problem(study.task)
        problem = problems[task]
        if problem is not None:
            reasons.append(_why_not(study, problem))
    if not reasons:
        return skipped("the data are not here yet")
    refused = [reason for reason in reasons if reason]
    if not refused:
        asked = f"{len(reasons)} of {counted(len(sweep.studies), 'study', 'studies')} asked"
        return ok(f"can do their tasks ({asked})")
    verdict = failed if len(refused) == len(sweep.studies) else warning
    return verdict("\n".join(refused), "change their settings, or take them out of the file")


def first_problem(spec: PluginSpec) -> Problem | None:
    """What the task hands to the first fit of a run; None where that would download data."""
    if any(missing(name) for name in names_of(spec)):
        return None
    asking = _Asking()
    rng = make_rng(stream="task", seed=0)
    try:
        load_task(spec).evaluate(
            asking, holdout="validation", rng=rng, report=_deaf, checkpoint=asking
        )
    except _SeenError as seen:
        return seen.problem
    return None  # it fits nothing


def _why_not(study: StudySpec, problem: Problem) -> str | None:
    task, method = study.labels
    try:
        reason = load_method(study.method).supports(problem)
    except Exception as error:  # a plugin may raise anything, and so would the run
        reason = describe(error)
    return f"{method} cannot do {task}: {reason}" if reason else None


class _SeenError(BaseException):  # not caught by a task that expects fits to fail
    """Ends a task at its first fit."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.problem = problem


class _Asking:
    """A fit that only looks at the problem, and a checkpoint without progress."""

    def __call__(
        self,
        problem: Problem,
        *,
        report: Report | None = None,
        warm_start: Predictive | None = None,
    ) -> NoReturn:
        raise _SeenError(problem)

    def many(
        self,
        problems: Sequence[Problem],
        *,
        warm_starts: Sequence[Predictive | None] | None = None,
    ) -> NoReturn:
        raise _SeenError(problems[0])

    def load(self) -> None:
        """Nothing was kept."""

    def save(self, state: object) -> None:
        """Nothing is kept."""


def _deaf(_step: int, _metrics: object) -> None:
    """Nobody hears it."""
