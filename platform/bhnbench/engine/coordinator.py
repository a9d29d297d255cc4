"""Hands out the runs of a sweep and takes their results in. Knows the ledger, not Ray."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace

from bhnbench.engine.retries import next_try, quarantined
from bhnbench.engine.study import Study
from bhnbench.engine.work import Work
from bhnbench.journal import Event, Journal
from bhnbench.ledger.ledger import Ledger
from bhnbench.ledger.records import RunRecord, SweepRecord, TrialRef
from bhnbench.runs import RunResult, RunState
from bhnbench.specs import StudySpec
from bhnbench.sweep.execution import Resources, Retries

NO_RETRIES = Retries(infra=0, out_of_memory=0)
ONE_CORE = Resources(cpu=1, gpu=0.0)


class Coordinator:
    """All studies of one sweep, side by side."""

    def __init__(
        self,
        ledger: Ledger,
        sweep: SweepRecord,
        on_landed: Callable[[int, str], None] = lambda study, key: None,
        *,
        resources_of: Callable[[StudySpec], Resources] = lambda study: ONE_CORE,
        retries: Retries = NO_RETRIES,
        fits: Callable[[Resources], bool] = lambda resources: True,
        journal: Journal | None = None,
    ) -> None:
        """Begin where the ledger says the sweep is.

        Args:
            ledger: the only truth.
            sweep: as recorded in it.
            on_landed: hears (study's position, run's key) when a result is in the ledger.
            resources_of: what one run of a study occupies.
            retries: how often a run that failed is tried again.
            fits: whether the cluster can give a run so much.
            journal: where decisions are told.
        """
        self._ledger = ledger
        self._on_landed = on_landed
        self._retries = retries
        self._fits = fits
        self._journal = journal or Journal(None)
        self._studies = [
            Study(n, record, sweep.n_seeds, ledger, resources_of(record.spec), self._tell_cached)
            for n, record in enumerate(sweep.studies)
        ]
        self._busy: set[str] = set()
        self._again: deque[Work] = deque()  # to be tried again

    @property
    def finished(self) -> bool:
        """Whether nothing is left, handed out or not."""
        return not self._busy and all(study.finished for study in self._studies)

    def n_left(self) -> Counter[Resources]:
        """At most so many runs are still to be handed out, by what they ask for."""
        left = Counter(work.asked for work in self._again)
        for study in self._studies:
            left[study.resources] += study.n_left
        return +left

    def next_work(self, resources: Resources | None = None) -> Work | None:
        """The next run, or None while all that is left waits for runs under way.

        Args:
            resources: only a run that asks for just that; None: any run.
        """
        for candidate in self._candidates(resources):
            claim = self._ledger.start_run(candidate.spec, candidate.trial)
            study = self._studies[candidate.study]
            if claim is None:
                study.n_handed_out -= bool(candidate.failed)
                self._give_up(candidate)
                continue
            work = replace(candidate, claim=claim)
            self._busy.add(work.spec.key)
            study.n_busy += 1
            study.n_handed_out += not work.failed
            self._tell("started", work, attempt=claim.attempt, resources=asdict(work.asked))
            return work
        return None

    def _candidates(self, resources: Resources | None) -> Iterator[Work]:
        """What could be claimed: first what is to be tried again, then of the idlest study."""
        for work in list(self._again):
            if resources in (None, work.asked):
                self._again.remove(work)
                yield work
        for study in sorted(self._studies, key=lambda s: (s.n_busy, s.n_handed_out)):
            if resources in (None, study.resources):
                found = study.next_work(self._busy)
                if found is not None:
                    yield found

    def stops_at_rung(self, work: Work, result: RunResult) -> bool:
        """Whether early termination ends a run that reported so far; it then lands as pruned."""
        if work.trial is None or not self._studies[work.study].is_beaten(work.trial, result):
            return False
        self.land(work, replace(result, state="pruned"))
        return True

    def land(self, work: Work, result: RunResult, *, killed: bool = False) -> None:
        """A run ended: into the ledger, then to its study, unless it is tried again.

        Args:
            work: as handed out.
            result: how it ended.
            killed: its worker died, and not because its node was lost.
        """
        study = self._studies[work.study]
        if killed:
            result = quarantined(work, result)
        value = result.outcome.scores[study.spec.metric] if result.outcome else None
        again = next_try(work, result, self._retries, self._fits)
        landed = self._ledger.finish_run(
            work.spec,
            result,
            work.trial if again is None else None,  # else the trial goes on
            value,
            attempt=work.claim.attempt,
            killed=killed,
        )
        study.n_busy -= 1
        if not landed:
            study.n_handed_out -= 1  # it is handed out again
            self._tell("refused", work, reason="somebody took the run over", state=result.state)
            self._give_up(work)
        elif again is not None:
            self._again.append(again)  # and it stays busy: no other study begins it
            self._tell_retried(work, again, result)
        else:
            self._settle(work, result, value)

    def _settle(self, work: Work, result: RunResult, value: float | None) -> None:
        self._busy.discard(work.spec.key)
        if work.trial is not None:
            self._studies[work.study].take_in(work.trial, result, value)
        self._tell_end(work, result, value)
        self._on_landed(work.study, work.spec.key)

    def _give_up(self, work: Work) -> None:
        """Another driver has it, or will tell how it ended."""
        self._busy.discard(work.spec.key)
        self._studies[work.study].put_back(work)
        self._tell("waiting", work)

    # --- the journal ----------------------------------------------------------------------

    def _tell(self, event: Event, work: Work, **fields: object) -> None:
        number = work.trial.number if work.trial else None
        study = " / ".join(self._studies[work.study].spec.labels)
        self._journal.write(event, work.spec.key, study=study, trial=number, **fields)

    def _tell_retried(self, work: Work, again: Work, result: RunResult) -> None:
        self._tell(
            "retried",
            work,
            failure=result.failure,
            message=result.message,
            attempt=work.claim.attempt + 1,
            resources=asdict(again.asked),
            before=asdict(work.asked),
        )

    def _tell_end(self, work: Work, result: RunResult, value: float | None) -> None:
        provenance = result.provenance
        where = {"host": provenance.get("host"), "device": provenance.get("device")}
        if result.state == "done":
            self._tell("done", work, seconds=result.cost.seconds, **where)
        elif result.state == "pruned":
            step, metrics = result.points[-1] if result.points else (None, {})
            self._tell("pruned", work, rung=step, value=metrics.get(work.metric))
        elif result.failure == "quarantined":
            self._tell("quarantined", work, reason=result.message)
        else:
            seconds = result.cost.seconds
            told = {"failure": result.failure, "message": result.message, "seconds": seconds}
            self._tell("failed", work, **told, **where)

    def _tell_cached(
        self, study: StudySpec, trial: TrialRef, run: RunRecord, state: RunState
    ) -> None:
        label = " / ".join(study.labels)
        self._journal.write("cached", run.key, study=label, trial=trial.number, state=state)
