"""Two drivers at one ledger: what one holds, the other leaves alone, until it is dead."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from bhnbench import files
from bhnbench.contract import Outcome
from bhnbench.errors import LedgerAwayError, LedgerError
from bhnbench.ledger import leases
from bhnbench.ledger.ledger import Ledger
from bhnbench.ledger.records import LEFT_RUNNING, TrialRef
from bhnbench.runs import RunResult
from bhnbench.specs import RunSpec
from bhnbench.sweep.document import read_sweep

DOCUMENT = """\
name: demo
tasks: [guess]
methods: [constant]
search: {sampler: random, trials: 3}
evaluate: {seeds: 2}
"""
DONE = RunResult("done", outcome=Outcome({"closeness": -0.1}))


class Place:
    """A ledger with a study, and drivers that come and go."""

    def __init__(self, address: str, folder: Path, stack: ExitStack) -> None:
        self.address, self._stack = address, stack
        file = folder / "sweep.yaml"
        file.write_text(DOCUMENT)
        self.sweep = read_sweep(file, ())
        with Ledger(address, create=True) as ledger:
            study = ledger.record_sweep(self.sweep).studies[0]
        assert study.id is not None
        self.study = study.id
        self.specs: list[RunSpec] = [study.spec.run({}, "evaluate", seed) for seed in (1, 2)]

    def driver(self, *, alone: bool = False) -> Ledger:
        ledger = self._stack.enter_context(Ledger(self.address))
        ledger.join(alone=alone)
        return ledger

    def let_time_pass(self, seconds: float) -> None:
        """All drivers were seen so much earlier."""
        with closing(
            create_engine(self.address, poolclass=NullPool).raw_connection()
        ) as connection:
            cursor = connection.cursor()
            if self.address.startswith("sqlite"):
                change = f"datetime(seen_at, '-{seconds} seconds')"
            else:
                change = f"seen_at - interval '{seconds} seconds'"
            cursor.execute(f"UPDATE drivers SET seen_at = {change}")
            connection.commit()


@pytest.fixture
def place(ledger_address: str, tmp_path: Path) -> Iterator[Place]:
    with ExitStack() as stack:
        yield Place(ledger_address, tmp_path, stack)


def test_drivers_that_note_the_same_sweep_at_once_note_it_once(place: Place) -> None:
    sweep = replace(place.sweep, name="other", content={**place.sweep.content, "name": "other"})
    drivers = [place.driver() for _ in range(4)]
    start = threading.Barrier(len(drivers))
    with ThreadPoolExecutor(len(drivers)) as pool:

        def note(driver: Ledger) -> int:
            start.wait()
            return driver.record_sweep(sweep).id

        assert len(set(pool.map(note, drivers))) == 1


def test_a_run_is_given_to_one_driver(place: Place) -> None:
    one, two = place.driver(), place.driver()
    claim = one.start_run(place.specs[0], None)
    assert claim == (1, 0)
    assert two.start_run(place.specs[0], None) is None
    assert two.start_run(place.specs[1], None) == (1, 0)
    assert one.finish_run(place.specs[0], DONE, attempt=1)
    assert two.start_run(place.specs[0], None) is None  # done: never again


def test_of_many_drivers_at_once_each_run_has_one(place: Place) -> None:
    specs = [place.sweep.studies[0].run({}, "evaluate", seed) for seed in range(1, 21)]
    drivers = [place.driver() for _ in range(4)]
    had: list[list[str]] = [[] for _ in drivers]
    start = threading.Barrier(len(drivers))

    def work(number: int) -> None:
        start.wait()
        for spec in specs:
            if drivers[number].start_run(spec, None) is not None:
                had[number].append(spec.key)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(len(drivers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(key for keys in had for key in keys) == sorted(spec.key for spec in specs)


def test_a_dead_drivers_run_is_taken_over_and_its_late_result_refused(place: Place) -> None:
    dead, heir = place.driver(), place.driver()
    dead.start_run(place.specs[0], None)
    place.let_time_pass(leases.LEASE_SECONDS + 1)
    heir.beat()
    assert heir.start_run(place.specs[0], None) == (2, 0)
    assert not dead.finish_run(place.specs[0], DONE, attempt=1)
    run = heir.find_runs("1")[0]
    assert (run.state, run.scores) == ("running", {})
    other = RunResult("done", outcome=Outcome({"closeness": -0.2}))
    assert heir.finish_run(place.specs[0], other, attempt=2)
    assert not dead.finish_run(place.specs[0], DONE, attempt=1)
    assert heir.find_runs("1")[0].scores == {"closeness": -0.2}


def test_a_driver_that_slept_keeps_what_nobody_took(place: Place) -> None:
    sleeper = place.driver()
    sleeper.start_run(place.specs[0], None)
    place.let_time_pass(leases.LEASE_SECONDS + 1)
    assert place.driver().release_runs() == 1  # somebody thought it dead, and took nothing
    assert sleeper.finish_run(place.specs[0], DONE, attempt=1)
    assert sleeper.find_runs("1")[0].scores == {"closeness": -0.1}
    assert sleeper.finish_run(place.specs[0], DONE, attempt=1)  # the answer was lost: again


def test_a_driver_that_is_seen_keeps_its_runs(place: Place) -> None:
    one, two = place.driver(), place.driver()
    one.start_run(place.specs[0], None)
    for _ in range(3):
        place.let_time_pass(leases.LEASE_SECONDS - 1)
        one.beat()
    assert two.start_run(place.specs[0], None) is None
    assert two.release_runs() == 0


def test_what_a_dead_driver_left_is_read_and_marked_as_interrupted(place: Place) -> None:
    dead, other = place.driver(), place.driver()
    assert dead.claim_study(place.study)
    spec = place.sweep.studies[0].search_run({"x": 0.5})
    dead.start_run(spec, TrialRef(place.study, 0, {"x": 0.5}))
    assert other.find_runs("1")[0].state == "running"
    assert other.trials(place.study)[0].state == "running"
    place.let_time_pass(leases.LEASE_SECONDS + 1)
    run = other.find_runs("1")[0]
    assert (run.state, run.failure, run.message) == ("failed", "interrupted", LEFT_RUNNING)
    assert other.trials(place.study)[0].failure == "interrupted"
    other.beat()
    assert other.release_runs() == 1
    assert other.release_runs() == 0


def test_a_study_is_searched_by_one_driver(place: Place) -> None:
    one, two = place.driver(), place.driver()
    trial = TrialRef(place.study, 0, {"x": 0.5})
    spec = place.sweep.studies[0].search_run(trial.configuration)
    assert one.claim_study(place.study)
    assert one.claim_study(place.study)
    assert not two.claim_study(place.study)
    assert two.start_run(spec, trial) is None
    assert one.start_run(spec, trial) is not None
    one.release_study(place.study)
    assert two.claim_study(place.study)
    assert not one.claim_study(place.study)
    place.let_time_pass(leases.LEASE_SECONDS + 1)
    one.beat()
    assert one.claim_study(place.study)
    assert two.start_run(spec, trial) is None  # it lost the study in its sleep


def test_who_leaves_gives_all_back(place: Place) -> None:
    one, two = place.driver(), place.driver()
    one.claim_study(place.study)
    one.start_run(place.specs[0], None)
    one.leave()
    assert two.find_runs("1")[0].failure == "interrupted"
    assert two.claim_study(place.study)
    assert two.start_run(place.specs[0], None) == (2, 0)


def test_who_is_alone_need_not_wait_for_leases(place: Place) -> None:
    dead = place.driver()
    dead.claim_study(place.study)
    dead.start_run(place.specs[0], None)
    heir = place.driver(alone=True)
    assert heir.release_runs() == 1
    assert heir.claim_study(place.study)
    assert heir.start_run(place.specs[0], None) == (2, 0)


def test_deaths_of_workers_are_counted(place: Place) -> None:
    driver = place.driver()
    killed = RunResult("failed", failure="interrupted", message="the worker died")
    for n_killed in range(3):
        assert driver.start_run(place.specs[0], None) == (n_killed + 1, n_killed)
        driver.finish_run(place.specs[0], killed, attempt=n_killed + 1, killed=True)
    final = RunResult("failed", failure="quarantined", message="it killed its worker")
    driver.start_run(place.specs[0], None)
    driver.finish_run(place.specs[0], final, attempt=4)
    assert driver.start_run(place.specs[0], None) is None


def test_sqlite_is_written_from_one_host(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'ledger.db'}"
    with Ledger(address, create=True) as one, Ledger(address) as two:
        one.join(alone=False)
        engine = create_engine(address, poolclass=NullPool)
        with engine.begin() as connection:
            connection.execute(text("UPDATE drivers SET host = 'elsewhere'"))
        rule = "must be written from one host, but a driver on elsewhere is at work"
        with pytest.raises(LedgerError, match=rule):
            two.join(alone=False)
        with engine.begin() as connection:
            late = leases.now() - timedelta(seconds=leases.LEASE_SECONDS + 1)
            connection.execute(
                text("UPDATE drivers SET seen_at = :late"), {"late": late.replace(tzinfo=None)}
            )
        two.join(alone=False)


def test_sqlite_is_not_written_over_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"server:/export {tmp_path.resolve()} nfs4 rw 0 0\n")
    monkeypatch.setattr(files, "MOUNTS", mounts)
    rule = "must lie on a disk of this machine, but .* is of kind nfs4"
    with pytest.raises(LedgerError, match=rule):
        Ledger(f"sqlite:///{tmp_path / 'home' / 'ledger.db'}", create=True)
    assert not (tmp_path / "home").exists()


@pytest.mark.postgres
@pytest.mark.parametrize("ledger_address", ["postgres"], indirect=True)
def test_a_patient_ledger_waits_for_its_server(place: Place) -> None:
    """A server that ends connections, as one that restarts does."""
    driver = place.driver()
    end = text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
        "AND state = 'idle in transaction' AND query LIKE 'SELECT %runs%'"
    )
    engine = create_engine(place.address, poolclass=NullPool)

    def interrupted(ledger: Ledger) -> None:
        with ledger._session() as session:
            session.execute(text("SELECT count(*) FROM runs")).all()
            with engine.begin() as connection:
                connection.execute(end)
            session.execute(text("SELECT count(*) FROM runs")).all()

    with pytest.raises(LedgerAwayError):
        interrupted(driver)
    engine.dispose()
    assert driver.start_run(place.specs[0], None) == (1, 0)  # on a new connection
