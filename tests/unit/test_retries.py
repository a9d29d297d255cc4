"""What is tried again at once, with what, and when it is over; and who may claim what is left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from bhnbench.contract import Outcome
from bhnbench.engine import study as study_module
from bhnbench.engine.coordinator import Coordinator
from bhnbench.engine.retries import enlarged
from bhnbench.engine.work import Work
from bhnbench.journal import Journal, read_events
from bhnbench.ledger import leases
from bhnbench.ledger.ledger import Ledger
from bhnbench.runs import Failure, RunResult
from bhnbench.sweep.document import Sweep, read_sweep
from bhnbench.sweep.execution import Resources, Retries

DOCUMENT = """\
name: demo
tasks: [guess]
methods: [constant, {name: constant, x: 0.1}]
search: {sampler: random, trials: 4}
evaluate: {seeds: 2}
"""


def failed(failure: Failure) -> RunResult:
    return RunResult("failed", failure=failure, message="the worker died: somehow")


def result_of(work: Work) -> RunResult:
    x = float(work.spec.method.settings["x"] or 0)
    return RunResult("done", outcome=Outcome({"closeness": -abs(x - 0.3)}))


class Place:
    """A ledger and drivers of one sweep."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder, self._stack = folder, stack
        (folder / "sweep.yaml").write_text(DOCUMENT)
        self.sweep: Sweep = read_sweep(folder / "sweep.yaml", ())

    def driver(self, **arguments: Any) -> Coordinator:
        address = f"sqlite:///{self._folder / 'ledger.db'}"
        self.ledger = self._stack.enter_context(Ledger(address, create=True))
        self.ledger.join(alone=False)
        journal = Journal(self._folder / "journal")
        self._stack.callback(journal.close)
        record = self.ledger.record_sweep(self.sweep)
        return Coordinator(self.ledger, record, journal=journal, **arguments)

    def events(self, work: Work) -> list[str]:
        return [event["event"] for event in read_events(self._folder / "journal", work.spec.key)]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with ExitStack() as stack:
        yield Place(tmp_path, stack)


def take(coordinator: Coordinator, resources: Resources | None = None) -> Work:
    work = coordinator.next_work(resources)
    assert work is not None
    return work


@pytest.mark.parametrize(
    ("failure", "n_tries"),
    [("interrupted", 6), ("out_of_memory", 2), ("error", 1), ("diverged", 1), ("unsupported", 1)],
)
def test_how_often_a_run_is_tried(place: Place, failure: Failure, n_tries: int) -> None:
    coordinator = place.driver(retries=Retries())
    first = take(coordinator)
    work = first
    for attempt in range(1, n_tries + 1):
        assert (work.spec.key, work.claim.attempt) == (first.spec.key, attempt)
        assert place.ledger.runs([work.spec.key])[work.spec.key].state == "running"
        coordinator.land(work, failed(failure))
        if attempt < n_tries:
            work = take(coordinator)
    assert take(coordinator).spec.key != first.spec.key
    record = place.ledger.runs([first.spec.key])[first.spec.key]
    assert (record.state, record.failure, record.attempts) == ("failed", failure, n_tries)
    told = ["started", "retried"] * (n_tries - 1) + ["started", "failed"]
    assert place.events(first) == told


def test_a_trial_that_is_tried_again_ends_as_its_last_try(place: Place) -> None:
    coordinator = place.driver(retries=Retries())
    work = take(coordinator)
    while work.trial is None:
        coordinator.land(work, result_of(work))
        work = take(coordinator)
    coordinator.land(work, failed("interrupted"))
    (trial,) = [t for t in place.ledger.trials(work.trial.study_id) if t.number == 0]
    assert trial.state == "running"
    again = take(coordinator)
    assert again.trial == work.trial
    coordinator.land(again, result_of(again))
    (trial,) = [t for t in place.ledger.trials(work.trial.study_id) if t.number == 0]
    assert (trial.state, trial.value) == ("done", pytest.approx(-0.2))


def test_what_ran_out_of_memory_asks_for_more_if_there_is_more(place: Place) -> None:
    asked = Resources(cpu=1, gpu=0.25, memory=2.0)
    coordinator = place.driver(retries=Retries(), resources_of=lambda study: asked)
    work = take(coordinator, asked)
    coordinator.land(work, failed("out_of_memory"))
    larger = Resources(cpu=1, gpu=0.5, memory=2.0)
    assert coordinator.n_left()[larger] == 1
    again = take(coordinator, larger)
    assert (again.spec, again.asked, again.resources) == (work.spec, larger, asked)
    small = place.driver(
        retries=Retries(), resources_of=lambda study: asked, fits=lambda r: r == asked
    )
    other = take(small)
    small.land(other, failed("out_of_memory"))
    assert small.n_left().keys() == {asked}


def test_larger_requests() -> None:
    assert enlarged(Resources(2, 0.0)) == Resources(4, 0.0)
    assert enlarged(Resources(2, 0.0, 3.0)) == Resources(2, 0.0, 6.0)
    assert enlarged(Resources(2, 0.5, 3.0)) == Resources(2, 1.0, 3.0)
    assert asdict(enlarged(Resources(1, 2.0)))["gpu"] == 4.0


def test_a_run_that_kills_its_workers_is_quarantined_for_good(place: Place) -> None:
    coordinator = place.driver(retries=Retries())
    first = work = take(coordinator)
    for _ in range(2):
        coordinator.land(work, failed("interrupted"), killed=True)
        work = take(coordinator)
    coordinator.land(work, failed("interrupted"))  # its node was lost: not its doing
    work = take(coordinator)
    coordinator.land(work, failed("interrupted"), killed=True)
    record = place.ledger.runs([first.spec.key])[first.spec.key]
    assert (record.failure, record.attempts) == ("quarantined", 4)
    assert record.message.startswith("3 workers died of it, so it is not tried again; the last: ")
    assert place.events(first)[-1] == "quarantined"
    place.ledger.leave()
    later = place.driver(retries=Retries())
    keys = []
    while (work_ := later.next_work()) is not None:
        keys.append(work_.spec.key)
        later.land(work_, result_of(work_))
    assert first.spec.key not in keys


def test_two_drivers_share_the_work_and_both_see_all_of_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_module, "LOOK_SECONDS", 0.0)
    one, two = place.driver(), place.driver()
    done: list[str] = []
    while not (one.finished and two.finished):
        works = [(driver, driver.next_work()) for driver in (one, two)]
        for driver, work in works:
            if work is not None:
                done.append(work.spec.key)
                driver.land(work, result_of(work))
    assert len(done) == len(set(done)) == 4 + 2 + 2
    assert all(
        run.state == "done" and run.attempts == 1 for run in place.ledger.runs(done).values()
    )


def test_a_driver_that_slept_too_long_gives_its_search_to_the_other(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_module, "LOOK_SECONDS", 0.0)
    sleeper = place.driver()
    sleeping = place.ledger
    held = [take(sleeper) for _ in range(3)]
    with sleeping._session(writes=True) as session:
        leases.leave(session, sleeping._driver or 0)  # as if its lease had ended
    heir = place.driver()
    taken = []
    while (work := heir.next_work()) is not None:
        taken.append(work.spec.key)
        heir.land(work, result_of(work))
    assert heir.finished
    assert {work.spec.key for work in held} <= set(taken)
    for work in held:
        sleeper.land(work, result_of(work))  # too late: refused, and nothing is told twice
    looks = [sleeper.next_work() for _ in range(5)]  # each finds some of it settled
    assert looks == [None] * 5
    assert sleeper.finished
    assert all(run.attempts <= 2 for run in place.ledger.runs(taken).values())
    assert "refused" in place.events(held[0])
