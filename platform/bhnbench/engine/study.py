"""One study while its sweep runs: first its search, then the evaluation of the best."""

from __future__ import annotations

import time
from collections import deque

from bhnbench.engine.search import OnUsed, Search
from bhnbench.engine.work import Work
from bhnbench.ledger.ledger import Ledger
from bhnbench.ledger.records import StudyRecord, TrialRef
from bhnbench.runs import RunResult
from bhnbench.selection import best_trial
from bhnbench.specs import RunSpec
from bhnbench.status import evaluation_specs
from bhnbench.sweep.execution import Resources

LOOK_SECONDS = 2.0  # between two looks at what another driver holds


class Study:
    """Hands out its runs one by one, and waits for those that another driver has."""

    def __init__(
        self,
        position: int,
        record: StudyRecord,
        n_seeds: int,
        ledger: Ledger,
        resources: Resources,
        on_used: OnUsed,
    ) -> None:
        if record.id is None:
            raise ValueError("a study must be in the ledger before it runs")
        self.spec = record.spec
        self.resources = resources
        self.n_busy = 0
        self.n_handed_out = 0
        self._id = record.id
        self._position = position
        self._record = record
        self._n_seeds = n_seeds
        self._ledger = ledger
        self._on_used = on_used
        self._search: Search | None = None  # while this driver holds the study
        self._evaluations: deque[RunSpec] | None = None
        self._n_open = record.n_trials + n_seeds  # an upper bound until all is frozen
        self._held_elsewhere: dict[str, float] = {}  # runs: when to look again
        self._look_again = 0.0  # at the study itself

    @property
    def finished(self) -> bool:
        """Whether all runs were handed out."""
        return self._evaluations is not None and not self._evaluations

    @property
    def n_left(self) -> int:
        """At most so many runs are still to be handed out."""
        if self._evaluations is not None:
            return len(self._evaluations)
        return max(0, self._n_open - self.n_handed_out)

    def next_work(self, busy: set[str]) -> Work | None:
        """The next run that is neither known nor under way; it is still to be claimed."""
        if self._evaluations is None:
            work = self._next_of_search(busy) if self._record.n_trials else None
            if work is not None or not self._search_over:
                return work
            self._ledger.release_study(self._id)
            self._evaluations = self._freeze()
        return self._next_evaluation(busy)

    @property
    def _search_over(self) -> bool:
        return self._record.n_trials == 0 or (self._search is not None and self._search.over)

    def put_back(self, work: Work) -> None:
        """It could not be claimed: another driver has the run, or by now the study."""
        self._look_again = time.monotonic() + LOOK_SECONDS
        if work.trial is None:
            if self._evaluations is not None:
                self._evaluations.append(work.spec)
                self._held_elsewhere[work.spec.key] = self._look_again
        elif self._search is not None:
            self._search.put_back(work.trial)
            if not self._ledger.holds_study(self._id):
                self._search = None  # taken while this driver slept; what it did is in the ledger

    def take_in(self, trial: TrialRef, result: RunResult, value: float | None) -> None:
        """A trial of this study ended."""
        if self._search is not None:
            self._search.take_in(trial, result, value)

    def is_beaten(self, trial: TrialRef, result: RunResult) -> bool:
        """Whether a running trial falls behind at its newest rung."""
        return self._search is not None and self._search.is_beaten(trial, result)

    def _next_of_search(self, busy: set[str]) -> Work | None:
        if time.monotonic() < self._look_again:
            return None
        if self._search is None:
            if not self._ledger.claim_study(self._id):
                self._look_again = time.monotonic() + LOOK_SECONDS
                return None
            self._search = Search(self._id, self._record, self._ledger, self._on_used)
        found = self._search.next_trial(busy)
        if found is None:
            return None
        trial, spec = found
        early = self.spec.search.early_termination if self.spec.search else None
        return Work(self._position, spec, trial, self.resources, early, self.spec.metric)

    def _next_evaluation(self, busy: set[str]) -> Work | None:
        evaluations = self._evaluations or deque()
        for _ in range(len(evaluations)):
            spec = evaluations.popleft()
            if spec.key in busy or time.monotonic() < self._held_elsewhere.get(spec.key, 0.0):
                evaluations.append(spec)
            elif not self._settled_elsewhere(spec):
                return Work(self._position, spec, None, self.resources)
        return None

    def _settled_elsewhere(self, spec: RunSpec) -> bool:
        if spec.key not in self._held_elsewhere:
            return False
        known = self._ledger.runs([spec.key])[spec.key]
        return known.settled

    def _freeze(self) -> deque[RunSpec]:
        """The evaluation runs of the best configuration that are not settled yet."""
        n_trials = self._record.n_trials
        trials = [t for t in self._ledger.trials(self._id) if t.number < n_trials]
        best = best_trial(trials, self.spec.direction)
        if best is None and n_trials:
            return deque()  # every trial failed: a gap, shown by status and leaderboard
        configuration = best.configuration if best else {}
        specs = evaluation_specs(self.spec, configuration, self._n_seeds)
        known = self._ledger.runs(spec.key for spec in specs)
        return deque(s for s in specs if s.key not in known or not known[s.key].settled)
