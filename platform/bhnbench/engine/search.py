"""The search of one study, while this driver holds it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import cast

from bhnbench.engine.proposer import Proposer, metric_points
from bhnbench.engine.rungs import Rungs
from bhnbench.ledger.ledger import Ledger
from bhnbench.ledger.records import RunRecord, StudyRecord, TrialRecord, TrialRef
from bhnbench.runs import Failure, RunResult, RunState
from bhnbench.specs import RunSpec, StudySpec

OnUsed = Callable[[StudySpec, TrialRef, RunRecord, RunState], None]
"""Hears where a trial takes over how a known run ended."""


class Search:
    """Trials by number, each with a run that is neither known nor under way."""

    def __init__(
        self, study_id: int, record: StudyRecord, ledger: Ledger, on_used: OnUsed
    ) -> None:
        """Set back to where the ledger says the search was.

        Args:
            study_id: in the ledger.
            record: the study, and how many trials it has here.
            ledger: the only truth.
            on_used: hears where a trial takes over how a known run ended.
        """
        self._id = study_id
        self._spec = record.spec
        self._n_trials = record.n_trials
        self._ledger = ledger
        self._on_used = on_used
        self._proposer = Proposer(record.spec)
        early = record.spec.search.early_termination if record.spec.search else None
        self._rungs = Rungs(early, record.spec.direction) if early else None
        self._beaten: set[str] = set()  # keys of the runs that this study stopped early
        self._redo: deque[TrialRef] = deque()
        self._waiting: TrialRef | None = None  # proposed, but its run is under way elsewhere
        self._open: set[int] = set()
        self._next_number = 0
        trials = [t for t in ledger.trials(study_id) if t.number < self._n_trials]
        points = ledger.points_of((trial.run_id for trial in trials), self._spec.metric)
        for trial in trials:
            self._next_number = trial.number + 1
            self._restore(trial, points.get(trial.run_id, []))

    def _restore(self, trial: TrialRecord, points: list[tuple[int, float]]) -> None:
        ref = TrialRef(self._id, trial.number, trial.configuration)
        if not trial.settled:
            self._proposer.reopen(trial)
            self._redo.append(ref)
            return
        if trial.last_step is not None:
            points = [point for point in points if point[0] <= trial.last_step]
        self._proposer.restore(trial, points)
        if trial.state == "pruned":
            self._beaten.add(self._spec.search_run(trial.configuration).key)
        if self._rungs is not None:
            self._rungs.stops(trial.number, points)

    @property
    def over(self) -> bool:
        """Whether every trial has ended."""
        return self._spent and not self._open

    @property
    def _spent(self) -> bool:
        handed_out = self._next_number >= self._n_trials and not self._redo
        return handed_out and self._waiting is None

    def next_trial(self, busy: set[str]) -> tuple[TrialRef, RunSpec] | None:
        """The next trial whose run is to be executed; None while that waits for others."""
        while not self._spent:
            trial = self._waiting or self._propose()
            spec = self._spec.search_run(trial.configuration)
            self._waiting = trial if spec.key in busy else None
            if self._waiting is not None:
                return None
            self._open.add(trial.number)
            known = self._ledger.runs([spec.key]).get(spec.key)
            if known is not None and spec.key in self._beaten:
                self._use(known, trial, "pruned")  # proposed again: it would be beaten again
            elif known is not None and known.settled:
                self._use(known, trial, known.state)
            else:
                return trial, spec
        return None

    def put_back(self, trial: TrialRef) -> None:
        """Another driver has its run: the search takes it up again, to find it ended or free."""
        self._open.discard(trial.number)
        self._redo.appendleft(trial)

    def take_in(self, trial: TrialRef, result: RunResult, value: float | None) -> None:
        """A trial ended; one that this search did not hand out is read in the ledger instead."""
        if trial.number not in self._open:
            return
        self._open.discard(trial.number)
        if result.state == "pruned":
            self._beaten.add(self._spec.search_run(trial.configuration).key)
        points = metric_points(result.points, self._spec.metric)
        self._proposer.tell(trial.number, result.state, value, points)

    def is_beaten(self, trial: TrialRef, result: RunResult) -> bool:
        """Whether a running trial falls behind at its newest rung."""
        points = metric_points(result.points, self._spec.metric)
        return self._rungs is not None and self._rungs.stops(trial.number, points)

    def _propose(self) -> TrialRef:
        if self._redo:
            return self._redo.popleft()
        number = self._next_number
        self._next_number += 1
        return TrialRef(self._id, number, self._proposer.ask(number))

    def _use(self, known: RunRecord, trial: TrialRef, state: RunState) -> None:
        """A trial whose run has ended before it was proposed."""
        value = known.scores.get(self._spec.metric) if state == "done" else None
        failure = cast("Failure | None", known.failure) if state == "failed" else None
        result = RunResult(state, failure=failure, points=self._ledger.points(known.id))
        self._ledger.use_run(known.id, result, trial, value)
        self.take_in(trial, result, value)
        self._on_used(self._spec, trial, known, state)
