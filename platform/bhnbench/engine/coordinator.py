"""Hands out the runs of a sweep and takes their results in. Knows the ledger, not Ray."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

from bhnbench.engine.proposer import Proposer, metric_points
from bhnbench.engine.rungs import Rungs
from bhnbench.ledger.ledger import Ledger
from bhnbench.ledger.records import RunRecord, StudyRecord, SweepRecord, TrialRef
from bhnbench.runs import Failure, RunResult, RunState
from bhnbench.selection import best_trial
from bhnbench.specs import EarlyTermination, RunSpec, StudySpec
from bhnbench.status import evaluation_specs


@dataclass(frozen=True)
class Work:
    """One run to execute, and why."""

    study: int  # position in the sweep
    spec: RunSpec
    trial: TrialRef | None
    early_termination: EarlyTermination | None = None
    metric: str = ""  # by which it may be stopped early


class Coordinator:
    """All studies of one sweep, side by side."""

    def __init__(
        self,
        ledger: Ledger,
        sweep: SweepRecord,
        on_landed: Callable[[int, str], None] = lambda study, key: None,
    ) -> None:
        """Rebuild every study from the ledger.

        Args:
            ledger: the only truth.
            sweep: as recorded in it.
            on_landed: hears (study's position, run's key) when a result is in the ledger.
        """
        self._ledger = ledger
        self._on_landed = on_landed
        self._studies = [
            _Study(position, record, sweep.n_seeds, ledger)
            for position, record in enumerate(sweep.studies)
        ]
        self._busy: set[str] = set()

    def __reduce__(self) -> tuple[type[Coordinator], tuple[()]]:
        """Tune pickles what it is given, for a restore that we never use: the ledger remembers."""
        return object.__new__, (Coordinator,)  # type: ignore[return-value]

    @property
    def finished(self) -> bool:
        """Whether nothing is left, handed out or not."""
        return not self._busy and all(study.finished for study in self._studies)

    def next_work(self) -> Work | None:
        """The next run, or None while all that is left waits for runs under way."""
        order = sorted(self._studies, key=lambda s: (s.n_busy, s.n_handed_out))
        for study in order:
            work = study.next_work(self._busy)
            if work is not None:
                self._ledger.start_run(work.spec, work.trial)
                self._busy.add(work.spec.key)
                study.n_busy += 1
                study.n_handed_out += 1
                return work
        return None

    def stops_at_rung(self, work: Work, result: RunResult) -> bool:
        """Whether early termination ends a run that reported so far; it then lands as pruned."""
        if work.trial is None or not self._studies[work.study].is_beaten(work.trial, result):
            return False
        self.land(work, replace(result, state="pruned"))
        return True

    def land(self, work: Work, result: RunResult) -> None:
        """A run ended: into the ledger, then to its study."""
        study = self._studies[work.study]
        value = result.outcome.scores[study.spec.metric] if result.outcome else None
        self._ledger.finish_run(work.spec, result, work.trial, value)
        self._busy.discard(work.spec.key)
        study.n_busy -= 1
        if work.trial is not None:
            study.take_in(work.trial, result, value)
        self._on_landed(work.study, work.spec.key)


class _Study:
    """One study while its sweep runs."""

    def __init__(self, position: int, record: StudyRecord, n_seeds: int, ledger: Ledger) -> None:
        if record.id is None:
            raise ValueError("a study must be in the ledger before it runs")
        self.spec: StudySpec = record.spec
        self.n_busy = 0
        self.n_handed_out = 0
        self._id = record.id
        self._position = position
        self._n_trials = record.n_trials
        self._n_seeds = n_seeds
        self._ledger = ledger
        self._proposer = Proposer(record.spec) if record.n_trials else None
        self._early = record.spec.search.early_termination if record.spec.search else None
        self._rungs = Rungs(self._early, record.spec.direction) if self._early else None
        self._beaten: set[str] = set()  # keys of the runs that this study stopped early
        self._redo: deque[TrialRef] = deque()
        self._waiting: TrialRef | None = None  # proposed, but its run is under way elsewhere
        self._next_number = 0
        self._n_open = 0
        self._evaluations: deque[RunSpec] | None = None
        if self._proposer is not None:
            self._restore(self._proposer)

    def _restore(self, proposer: Proposer) -> None:
        """Set the search back to where the ledger says it was."""
        for trial in self._ledger.trials(self._id):
            if trial.number >= self._n_trials:
                break
            self._next_number = trial.number + 1
            points = metric_points(self._ledger.points(trial.run_id), self.spec.metric)
            if trial.settled:
                if trial.last_step is not None:
                    points = [point for point in points if point[0] <= trial.last_step]
                proposer.restore(trial, points)
                if trial.state == "pruned":
                    self._beaten.add(self.spec.search_run(trial.configuration).key)
                if self._rungs is not None:
                    self._rungs.stops(trial.number, points)
            else:
                proposer.reopen(trial)
                self._redo.append(TrialRef(self._id, trial.number, trial.configuration))

    @property
    def finished(self) -> bool:
        """Whether all runs were handed out."""
        return self._search_spent and self._evaluations is not None and not self._evaluations

    @property
    def _search_spent(self) -> bool:
        handed_out = self._next_number >= self._n_trials and not self._redo
        return handed_out and self._waiting is None

    def next_work(self, busy: set[str]) -> Work | None:
        """The next run that is neither known nor under way."""
        while not self._search_spent:
            trial = self._waiting or self._next_trial()
            spec = self.spec.search_run(trial.configuration)
            self._waiting = trial if spec.key in busy else None
            if self._waiting is not None:
                return None
            self._n_open += 1
            known = self._ledger.runs([spec.key]).get(spec.key)
            if known is not None and spec.key in self._beaten:
                self._use(known, trial, "pruned")  # proposed again: it would be beaten again
            elif known is not None and known.settled:
                self._use(known, trial, known.state)
            else:
                return Work(self._position, spec, trial, self._early, self.spec.metric)
        if self._n_open:
            return None
        return self._next_evaluation(busy)

    def _next_trial(self) -> TrialRef:
        if self._redo:
            return self._redo.popleft()
        if self._proposer is None:
            raise ValueError("a study without search has no trials")
        number = self._next_number
        self._next_number += 1
        return TrialRef(self._id, number, self._proposer.ask(number))

    def _use(self, known: RunRecord, trial: TrialRef, state: RunState) -> None:
        """A trial whose run has ended before it was proposed."""
        value = known.scores.get(self.spec.metric) if state == "done" else None
        failure = cast("Failure | None", known.failure) if state == "failed" else None
        result = RunResult(state, failure=failure, points=self._ledger.points(known.id))
        self._ledger.use_run(known.id, result, trial, value)
        self.take_in(trial, result, value)

    def take_in(self, trial: TrialRef, result: RunResult, value: float | None) -> None:
        """A trial of this study ended."""
        self._n_open -= 1
        if result.state == "pruned":
            self._beaten.add(self.spec.search_run(trial.configuration).key)
        points = metric_points(result.points, self.spec.metric)
        if self._proposer is not None:
            self._proposer.tell(trial.number, result.state, value, points)

    def is_beaten(self, trial: TrialRef, result: RunResult) -> bool:
        """Whether a running trial falls behind at its newest rung."""
        points = metric_points(result.points, self.spec.metric)
        return self._rungs is not None and self._rungs.stops(trial.number, points)

    def _next_evaluation(self, busy: set[str]) -> Work | None:
        if self._evaluations is None:
            self._evaluations = self._freeze()
        for _ in range(len(self._evaluations)):
            spec = self._evaluations.popleft()
            if spec.key not in busy:
                return Work(self._position, spec, None)
            self._evaluations.append(spec)
        return None

    def _freeze(self) -> deque[RunSpec]:
        """The evaluation runs of the best configuration that are not settled yet."""
        trials = [t for t in self._ledger.trials(self._id) if t.number < self._n_trials]
        best = best_trial(trials, self.spec.direction)
        if best is None and self._n_trials:
            return deque()  # every trial failed: a gap, shown by status and leaderboard
        configuration = best.configuration if best else {}
        specs = evaluation_specs(self.spec, configuration, self._n_seeds)
        known = self._ledger.runs(spec.key for spec in specs)
        return deque(s for s in specs if s.key not in known or not known[s.key].settled)
