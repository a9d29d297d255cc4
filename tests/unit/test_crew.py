"""How many workers are hired, what each is given, and when one may go."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bhnbench.contract import Outcome
from bhnbench.engine import crew as crew_module
from bhnbench.engine.coordinator import Coordinator
from bhnbench.engine.crew import Crew
from bhnbench.engine.work import Work
from bhnbench.ledger.ledger import Ledger
from bhnbench.runs import RunResult
from bhnbench.sweep.document import read_sweep
from bhnbench.sweep.execution import Resources

DOCUMENT = """\
name: demo
tasks: [guess]
methods: [constant, {name: constant, x: 0.1, resources: {cpu: 2}}]
evaluate: {seeds: 3}
"""
SMALL, LARGE = Resources(cpu=1, gpu=0.0), Resources(cpu=2, gpu=0.0)
DONE = RunResult("done", outcome=Outcome({"closeness": -0.1}))


class Room:
    """A cluster of so many processors on one node."""

    def __init__(self, n_cpus: int, *, grows: bool = False) -> None:
        self.n_cpus, self.grows = n_cpus, grows

    def slots(self, resources: Resources) -> int:
        return self.n_cpus // resources.cpu


class Handle:
    """An actor's, which keeps what it is told."""

    def __init__(self) -> None:
        self.given: list[str] = []
        self.give = self

    def remote(self, run: str) -> None:
        self.given.append(json.loads(run))


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Coordinator]:
    (tmp_path / "sweep.yaml").write_text(DOCUMENT)
    sweep = read_sweep(tmp_path / "sweep.yaml", ())
    with Ledger(f"sqlite:///{tmp_path / 'ledger.db'}", create=True) as ledger:
        record = ledger.record_sweep(sweep)
        yield Coordinator(ledger, record, resources_of=sweep.resources_of)


def make(coordinator: Coordinator, room: Room) -> Crew:
    def pack(work: Work) -> str:
        return json.dumps(work.spec.key)

    return Crew(coordinator, room, pack)  # type: ignore[arg-type]


def hire_all(crew: Crew) -> list[Resources]:
    found = []
    while (resources := crew.hire(f"worker-{len(found)}")) is not None:
        found.append(resources)
    return found


def test_as_many_are_hired_as_there_is_room_or_work_for(coordinator: Coordinator) -> None:
    assert hire_all(make(coordinator, Room(2))) == [SMALL, SMALL, LARGE]
    assert hire_all(make(coordinator, Room(2, grows=True))) == [SMALL] * 3 + [LARGE] * 2
    assert hire_all(make(coordinator, Room(100))) == [SMALL] * 3 + [LARGE] * 3


def test_a_worker_is_given_run_after_run_of_its_own_kind(coordinator: Coordinator) -> None:
    crew = make(coordinator, Room(1))
    assert crew.hire("one") == SMALL
    handle = Handle()
    assert crew.goes_on("one", handle, None)
    assert crew.goes_on("one", None, DONE)
    assert crew.goes_on("one", None, DONE)
    assert not crew.goes_on("one", None, DONE)  # all that is left asks for more
    assert len(set(handle.given)) == 3
    assert coordinator.n_left() == {LARGE: 3}
    assert not crew.finished


def test_an_idle_worker_goes_where_others_want_its_room(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew_module, "IDLE_LIMIT_SECONDS", -1.0)
    monkeypatch.setattr(coordinator, "next_work", lambda resources: None)  # another driver has all
    crew = make(coordinator, Room(2))
    assert crew.hire("one") == SMALL
    assert not crew.goes_on("one", Handle(), None)  # a large run wants its room
    assert crew.hire("two") == LARGE  # the small ones rest
    monkeypatch.setattr(coordinator, "n_left", lambda: {SMALL: 1})
    assert crew.hire("three") is None
    crew._rested_until.clear()  # as when a run has ended
    assert crew.hire("three") == SMALL


def test_a_lost_worker_s_run_is_handed_out_again(coordinator: Coordinator) -> None:
    crew = make(coordinator, Room(1))
    crew.hire("one")
    crew.goes_on("one", Handle(), None)
    assert coordinator.n_left()[SMALL] == 2
    crew.lost("one", RunResult("failed", failure="error", message="gone"), killed=False)
    assert crew.hire("two") == SMALL
