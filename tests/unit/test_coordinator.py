"""The coordinator hands out each run once, rebuilds studies, and survives what comes back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bhnbench.contract import Outcome
from bhnbench.engine.coordinator import Coordinator, Work
from bhnbench.engine.proposer import Proposer
from bhnbench.engine.rungs import Rungs, milestones
from bhnbench.ledger.ledger import Ledger
from bhnbench.ledger.records import TrialRecord
from bhnbench.runs import RunResult
from bhnbench.specs import EarlyTermination
from bhnbench.status import study_statuses
from bhnbench.sweep.document import Sweep, read_sweep

DOCUMENT = """\
name: demo
tasks: [guess]
methods: [constant]
search: {{sampler: {sampler}, trials: 8}}
evaluate: {{seeds: 3}}
"""


def read(tmp_path: Path, sampler: str = "tpe", *overrides: str) -> Sweep:
    (tmp_path / "sweep.yaml").write_text(DOCUMENT.format(sampler=sampler))
    return read_sweep(tmp_path / "sweep.yaml", overrides)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(f"sqlite:///{tmp_path / 'ledger.db'}", create=True) as opened:
        yield opened


def start(ledger: Ledger, sweep: Sweep) -> Coordinator:
    return Coordinator(ledger, ledger.record_sweep(sweep))


def result_of(work: Work) -> RunResult:
    """What the task `guess` would say."""
    x = float(work.spec.method.settings["x"] or 0)
    return RunResult("done", outcome=Outcome({"closeness": -abs(x - 0.3)}))


def run_all(coordinator: Coordinator, limit: int = 1000) -> list[Work]:
    done = []
    while len(done) < limit and (work := coordinator.next_work()) is not None:
        coordinator.land(work, result_of(work))
        done.append(work)
    return done


def trials_in(ledger: Ledger) -> list[TrialRecord]:
    """Of the only study of the sweep started last."""
    (study,) = ledger.sweeps()[0].studies
    return ledger.trials(study.id or 0)


def test_search_then_evaluation_of_the_best(tmp_path: Path, ledger: Ledger) -> None:
    sweep = read(tmp_path)
    coordinator = start(ledger, sweep)
    works = run_all(coordinator)
    assert coordinator.finished
    assert [w.spec.phase for w in works] == ["search"] * 8 + ["evaluate"] * 3
    assert [w.spec.seed for w in works] == [0] * 8 + [1, 2, 3]
    assert works[0].spec.method.settings["x"] == 0.5  # trial 0 is the default
    tried = [float(w.spec.method.settings["x"] or 0) for w in works[:8]]
    best = min(tried, key=lambda x: abs(x - 0.3))
    assert {w.spec.method.settings["x"] for w in works[8:]} == {best}
    assert len(set(tried)) == 8


def test_a_second_sweep_has_nothing_to_do(tmp_path: Path, ledger: Ledger) -> None:
    sweep = read(tmp_path)
    run_all(start(ledger, sweep))
    again = start(ledger, sweep)
    assert again.next_work() is None
    assert again.finished


def test_more_trials_go_on_with_the_same_search(tmp_path: Path, ledger: Ledger) -> None:
    first = run_all(start(ledger, read(tmp_path)))
    more = run_all(start(ledger, read(tmp_path, "tpe", "search.trials=12", "evaluate.seeds=4")))
    searched = [w for w in more if w.spec.phase == "search"]
    assert [w.trial.number for w in searched if w.trial] == [8, 9, 10, 11]
    assert not {w.spec.key for w in first} & {w.spec.key for w in more}


@pytest.mark.parametrize("sampler", ["tpe", "random"])
@pytest.mark.parametrize("killed_after", [0, 1, 3, 7, 8, 9])
def test_a_killed_search_goes_on_as_if_nothing_had_been(
    tmp_path: Path, ledger: Ledger, sampler: str, killed_after: int
) -> None:
    sweep = read(tmp_path, sampler)
    whole = run_all(start(ledger, sweep))
    with Ledger(f"sqlite:///{tmp_path / 'other.db'}", create=True) as other:
        first = start(other, sweep)
        before = run_all(first, killed_after)
        first.next_work()  # one run is under way when the driver dies
        other.release_runs()
        after = run_all(start(other, sweep))
    assert [w.spec.key for w in before + after] == [w.spec.key for w in whole]


def test_a_grid_tries_every_point_once(tmp_path: Path, ledger: Ledger) -> None:
    text = DOCUMENT.format(sampler="grid").replace(", trials: 8", "")
    parameters = "{name: constant, parameters: {x: {values: [0.1, 0.5, 0.9]}}}"
    (tmp_path / "grid.yaml").write_text(text.replace("[constant]", f"[{parameters}]"))
    works = run_all(start(ledger, read_sweep(tmp_path / "grid.yaml")))
    assert [w.spec.method.settings["x"] for w in works[:3]] == [0.5, 0.1, 0.9]
    assert len(works) == 6


def test_work_is_shared_out_fairly_and_waits_for_what_is_under_way(
    tmp_path: Path, ledger: Ledger
) -> None:
    (tmp_path / "two.yaml").write_text(
        DOCUMENT.format(sampler="random").replace(
            "[constant]", "[constant, {name: constant, label: same, parameters: {x: {min: 0.0, "
            "max: 0.9}}}]"
        )
    )  # fmt: skip
    coordinator = start(ledger, read_sweep(tmp_path / "two.yaml"))
    first, second = coordinator.next_work(), coordinator.next_work()
    assert first is not None
    assert second is not None
    assert first.study == 0
    # Both studies begin with the same default; the second does not start it again, but waits.
    assert second.study == 0
    coordinator.land(first, result_of(first))
    coordinator.land(second, result_of(second))
    works = run_all(coordinator)
    keys = [w.spec.key for w in [first, second, *works]]
    assert len(keys) == len(set(keys))
    statuses = study_statuses(ledger, ledger.sweeps()[0].studies, 3)
    assert [s.n_left for s in statuses] == [0, 0]
    assert [s.search.n_ended for s in statuses] == [8, 8]


def test_failed_trials_count_and_the_best_of_the_rest_is_evaluated(
    tmp_path: Path, ledger: Ledger
) -> None:
    coordinator = start(ledger, read(tmp_path))
    n_landed = 0
    while (work := coordinator.next_work()) is not None:
        failure = RunResult("failed", failure="diverged", message="nan")
        coordinator.land(work, failure if n_landed % 2 == 0 else result_of(work))
        n_landed += 1
    (status,) = study_statuses(ledger, ledger.sweeps()[0].studies, 3)
    assert status.count("failed", phase="search") == 4
    assert status.best is not None
    assert status.best.number % 2 == 1


def test_a_study_whose_trials_all_fail_is_a_gap(tmp_path: Path, ledger: Ledger) -> None:
    coordinator = start(ledger, read(tmp_path))
    while (work := coordinator.next_work()) is not None:
        assert work.spec.phase == "search"
        coordinator.land(work, RunResult("failed", failure="diverged", message="nan"))
    assert coordinator.finished
    (status,) = study_statuses(ledger, ledger.sweeps()[0].studies, 3)
    assert status.hopeless
    assert status.n_left == 0


def test_passing_failures_are_tried_again_and_final_ones_are_not(
    tmp_path: Path, ledger: Ledger
) -> None:
    sweep = read(tmp_path)
    coordinator = start(ledger, sweep)
    failures = {0: "interrupted", 1: "out_of_memory", 2: "error", 3: "diverged"}
    first = {}
    while (work := coordinator.next_work()) is not None:
        number = work.trial.number if work.trial else None
        failure = failures.get(number) if number is not None else None
        first[number] = work.spec.key
        failed = RunResult("failed", failure=failure, message="")  # type: ignore[arg-type]
        coordinator.land(work, failed if failure else result_of(work))
    again = [w for w in run_all(start(ledger, sweep)) if w.trial is not None]
    assert [w.trial.number for w in again if w.trial] == [0, 1, 2]
    assert [w.spec.key for w in again] == [first[0], first[1], first[2]]


def test_a_run_beaten_at_its_rung_is_pruned_and_told_so(tmp_path: Path, ledger: Ledger) -> None:
    sweep = read(tmp_path, "tpe", "search.early_terminate={type: asha, min_iter: 1, eta: 2}")
    coordinator = start(ledger, sweep)
    good, bad = coordinator.next_work(), coordinator.next_work()
    assert good is not None
    assert bad is not None
    assert good.early_termination == EarlyTermination(1, 2)
    assert not coordinator.stops_at_rung(
        good, RunResult("running", points=[(1, {"closeness": -0.1})])
    )
    points = [(1, {"closeness": -0.9})]
    assert coordinator.stops_at_rung(bad, RunResult("running", points=points))
    coordinator.land(good, replace(result_of(good), points=[(1, {"closeness": -0.1})]))
    assert [trial.state for trial in trials_in(ledger)] == ["done", "pruned"]
    # The rungs are refilled on resume: what was beaten before is beaten again.
    resumed = start(ledger, sweep)
    third = resumed.next_work()
    assert third is not None
    assert resumed.stops_at_rung(third, RunResult("running", points=points))


def test_a_pruned_run_is_no_result_for_others(tmp_path: Path, ledger: Ledger) -> None:
    early = "search.early_terminate={type: asha, min_iter: 1, eta: 2}"
    coordinator = start(ledger, read(tmp_path, "random", early))
    good, bad = coordinator.next_work(), coordinator.next_work()
    assert good is not None
    assert bad is not None
    coordinator.stops_at_rung(good, RunResult("running", points=[(1, {"closeness": -0.1})]))
    assert coordinator.stops_at_rung(bad, RunResult("running", points=[(1, {"closeness": -1})]))
    patient = run_all(start(ledger, read(tmp_path, "random", f"{early[:-1]}0}}")))
    assert patient  # min_iter 10: another study, with runs of its own to finish


def test_tpe_depends_on_what_it_is_told(tmp_path: Path) -> None:
    (study,) = read(tmp_path).studies

    def last(target: float) -> object:
        proposer = Proposer(study)
        for number in range(12):
            x = proposer.ask(number)["x"]
            proposer.tell(number, "done", -abs(float(x or 0) - target), [])
        return proposer.ask(12)["x"]

    assert last(0.1) == last(0.1)
    assert last(0.1) != last(0.9)


def test_no_value_is_told_for_pruned_and_failed_trials(tmp_path: Path) -> None:
    (study,) = read(tmp_path).studies
    proposer = Proposer(study)
    for number, state in enumerate(("done", "pruned", "failed")):
        proposer.ask(number)
        proposer.tell(number, state, -1.0 if state == "done" else None, [(1, -2.0), (2, -1.5)])
    trials = proposer._study.trials
    assert [t.state.name for t in trials] == ["COMPLETE", "PRUNED", "FAIL"]
    assert trials[1].intermediate_values == {1: -2.0, 2: -1.5}


def test_rungs() -> None:
    early = EarlyTermination(min_iter=2, eta=3)
    assert milestones(early)[:4] == [2, 6, 18, 54]
    rungs = Rungs(early, "maximize")
    assert not rungs.stops(0, [(1, 0.0)])  # before the first rung
    assert not rungs.stops(0, [(1, 0.0), (2, 0.9)])  # nobody to compare with
    assert rungs.stops(1, [(2, 0.1)])
    assert not rungs.stops(2, [(3, 1.0)])  # reports need not fall on the rung
    falling = Rungs(early, "minimize")
    assert not falling.stops(0, [(2, 0.1)])
    assert falling.stops(1, [(2, 0.9)])


def test_a_trial_that_resumes_takes_its_place_on_every_rung_it_passed() -> None:
    rungs = Rungs(EarlyTermination(min_iter=1, eta=3), "maximize")
    assert not rungs.stops(0, [(1, 0.5), (3, 0.6)])
    assert rungs.stops(1, [(1, 0.1)])  # rung 1 knows of trial 0
    assert rungs.stops(2, [(1, 0.9), (3, 0.2)])  # and so does rung 3


def test_a_configuration_that_was_beaten_is_not_executed_again(
    tmp_path: Path, ledger: Ledger
) -> None:
    read(tmp_path)
    parameters = "methods.0={name: constant, parameters: {x: {values: [0.5, 0.9]}}}"
    sweep = read_sweep(
        tmp_path / "sweep.yaml",
        ["search.early_terminate={type: asha, min_iter: 1, eta: 2}", parameters],
    )
    coordinator = start(ledger, sweep)
    executed = []
    while (work := coordinator.next_work()) is not None and work.trial is not None:
        executed.append(work.spec.key)
        x = float(work.spec.method.settings["x"] or 0)
        points = [(1, {"closeness": -abs(x - 0.3)})]
        if not coordinator.stops_at_rung(work, RunResult("running", points=points)):
            coordinator.land(work, replace(result_of(work), points=points))
    assert len(executed) == len(set(executed)) == 2
    trials = trials_in(ledger)
    assert len(trials) == 8
    assert {trial.state for trial in trials} == {"done", "pruned"}


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_evaluation_seeds_are_fresh_whatever_the_sampler_s_seed(
    tmp_path: Path, ledger: Ledger, seed: int
) -> None:
    works = run_all(start(ledger, read(tmp_path, "random", f"search.seed={seed}")))
    seeds = {phase: {w.spec.seed for w in works if w.spec.phase == phase} for phase in
             ("search", "evaluate")}  # fmt: skip
    assert seeds == {"search": {0}, "evaluate": {1, 2, 3}}


def test_a_failed_trial_does_not_hide_the_evaluation_of_the_best(
    tmp_path: Path, ledger: Ledger
) -> None:
    coordinator = start(ledger, read(tmp_path))
    while (work := coordinator.next_work()) is not None:
        fails = work.trial is not None and work.trial.number == 3
        failure = RunResult("failed", failure="error", message="broke")
        coordinator.land(work, failure if fails else result_of(work))
    (status,) = study_statuses(ledger, ledger.sweeps()[0].studies, 3)
    assert status.search_over
    assert status.count("done", phase="evaluate") == 3
    assert status.n_left == 1  # the failed trial is tried again by the next sweep


def test_another_study_s_retry_leaves_a_stopped_trial_as_it_was(
    tmp_path: Path, ledger: Ledger
) -> None:
    early = "search.early_terminate={type: asha, min_iter: 1, eta: 2}"
    coordinator = start(ledger, read(tmp_path, "random", early))
    good, bad = coordinator.next_work(), coordinator.next_work()
    assert good is not None
    assert bad is not None
    coordinator.stops_at_rung(good, RunResult("running", points=[(1, {"closeness": -0.1})]))
    points = [(1, {"closeness": -1.0})]
    assert coordinator.stops_at_rung(bad, RunResult("running", points=points))
    ledger.start_run(bad.spec, None)
    ledger.finish_run(bad.spec, RunResult("failed", failure="error", message="elsewhere"))
    (status,) = study_statuses(ledger, ledger.sweeps()[0].studies, 3)
    assert status.failures == []
    assert ledger.points(trials_in(ledger)[1].run_id) == points


def test_a_changed_configuration_is_another_run(tmp_path: Path) -> None:
    (study,) = read(tmp_path).studies
    run = study.search_run({"x": 0.25})
    assert run.key != study.search_run({"x": 0.26}).key
    assert run.key != study.run({"x": 0.25}, "evaluate", 0).key
    assert run.key == replace(run, task=replace(run.task, target="elsewhere:Guess")).key
