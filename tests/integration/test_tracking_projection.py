"""MLflow shows what the ledger knows: real MLflow on SQLite."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from bhnbench_doubles.tracked_sweeps import FIXED, SEARCHED, Place, parent_of, statuses, tag
from matplotlib.figure import Figure

from bhnbench.contract import Outcome
from bhnbench.engine.coordinator import Coordinator
from bhnbench.ledger.ledger import Ledger
from bhnbench.ledger.records import RunRecord, SweepRecord
from bhnbench.runs import RunResult
from bhnbench.statistics import summarize
from bhnbench.tracking.content import Child, to_key

pytestmark = pytest.mark.slow


def test_an_experiment_with_a_parent_a_study_and_a_child_a_run(tmp_path: Path) -> None:
    document = """\
name: demo
tasks: [{name: guess, label: guess, n_steps: 4}]
methods: [constant, {name: failing, how: diverge}]
search: {sampler: random, trials: 4, early_terminate: {type: asha, min_iter: 1, eta: 2}}
evaluate: {seeds: 3}
"""
    with Ledger(f"sqlite:///{tmp_path / 'ledger.db'}", create=True) as ledger:
        place = Place(tmp_path, ledger, tmp_path / "new" / "mlflow.db")  # made by the tracker
        sweep = place.record(document)
        tracker = place.tracker(sweep)
        place.run(sweep, tracker)
        assert tracker.close() is None
        runs = place.runs()
        parents = {tag(run, "method"): run for run in runs if parent_of(run) is None}
        children = [run for run in runs if parent_of(run) is not None]
        assert list(place.experiments()) == ["demo"]
        assert sorted(parents) == ["constant", "failing"]
        assert len(children) == 4 + 3 + 4
        for child in children:
            assert parent_of(child) == parents[tag(child, "method")].info.run_id
        assert parents["constant"].info.status == "FINISHED"
        assert parents["failing"].info.status == "FAILED"
        failed = [run for run in children if tag(run, "method") == "failing"]
        assert statuses(failed) == {"FAILED": 4}
        assert {tag(run, "failure") for run in failed} == {"diverged"}
        assert all("loss must be finite" in tag(run, "message") for run in failed)
        trials = ledger.trials(sweep.studies[0].id)
        searched = {tag(run, "trial"): run for run in children if run not in failed}
        shown_states = {tag(r, "trial"): tag(r, "state") for r in children if r not in failed}
        assert {str(t.number): t.state for t in trials}.items() <= shown_states.items()
        pruned = [searched[str(t.number)] for t in trials if t.state == "pruned"]
        assert pruned
        assert statuses(pruned) == {"KILLED": len(pruned)}


def test_scores_curves_cost_and_configuration_of_a_child(place: Place) -> None:
    sweep = place.record(SEARCHED)
    place.run(sweep)
    place.sync(sweep)
    (trial,) = [run for run in place.runs() if tag(run, "trial") == "1"]
    record = place.ledger.find_runs(tag(trial, "run"))[0]
    assert trial.info.run_name == "constant trial 1"
    assert trial.data.params == {"x": str(record.spec.method.settings["x"])}
    assert trial.data.metrics["validation/closeness"] == record.scores["closeness"]
    assert trial.data.metrics["fit_seconds"] == record.cost.fit_seconds
    assert trial.data.metrics["peak_memory_mb"] == record.cost.peak_memory_mb
    points = [(step, m["closeness"]) for step, m in place.ledger.points(record.id)]
    assert place.curve(trial, "closeness") == points
    assert trial.info.start_time == int(record.started_at.timestamp() * 1000)
    assert trial.info.end_time == int(record.finished_at.timestamp() * 1000)
    assert tag(trial, "seed") == "0"
    (evaluation,) = [run for run in place.runs() if tag(run, "seed") == "2"]
    assert evaluation.info.run_name == "constant seed 2"
    assert "test/closeness" in evaluation.data.metrics


def test_the_parent_aggregates_the_test_scores(place: Place) -> None:
    sweep = place.record(SEARCHED)
    place.run(sweep)
    place.sync(sweep)
    runs = place.runs()
    (parent,) = [run for run in runs if parent_of(run) is None]
    seeds = sorted(
        (r for r in runs if tag(r, "phase") == "evaluate"), key=lambda r: tag(r, "seed")
    )
    expected = summarize([run.data.metrics["test/closeness"] for run in seeds])
    shown = {k: v for k, v in parent.data.metrics.items() if k.startswith("test/closeness/")}
    assert shown == {
        "test/closeness/mean": expected.mean,
        "test/closeness/sd": expected.sd,
        "test/closeness/low": expected.low,
        "test/closeness/high": expected.high,
        "test/closeness/n": 3,
    }
    assert parent.data.params["x"] == seeds[0].data.params["x"]
    assert parent.data.params["task.n_steps"] == "3"
    best = max(r.data.metrics["validation/closeness"] for r in runs if tag(r, "phase") == "search")
    assert parent.data.metrics["validation/closeness/best"] == best


def test_one_seed_has_no_interval(place: Place) -> None:
    sweep = place.record(FIXED.replace("seeds: 2", "seeds: 1"))
    place.run(sweep)
    place.sync(sweep)
    (parent,) = [run for run in place.runs("fixed") if parent_of(run) is None]
    aggregates = {k for k in parent.data.metrics if k.startswith("test/")}
    assert aggregates == {"test/closeness/mean", "test/closeness/n"}


def test_a_resumed_sweep_goes_on_in_the_same_runs(place: Place) -> None:
    sweep = place.record(SEARCHED)
    tracker = place.tracker(sweep)
    place.run(sweep, tracker, n_runs=2)
    assert tracker.close() is None
    before = {run.info.run_id for run in place.runs()}
    assert statuses(place.runs()) == {"FINISHED": 2, "KILLED": 1}  # the study was interrupted
    tracker = place.tracker(sweep)
    place.run(sweep, tracker)
    assert tracker.close() is None
    runs = place.runs()
    assert before < {run.info.run_id for run in runs}
    assert statuses(runs) == {"FINISHED": 1 + 3 + 3}
    assert place.sync(sweep) == (0, 7)


def test_while_a_sweep_goes_on_its_runs_appear(place: Place) -> None:
    sweep = place.record(SEARCHED)
    tracker = place.tracker(sweep)
    place.run(sweep, tracker, n_runs=1)
    for _ in range(200):
        time.sleep(0.1)
        if place.experiments() and len(place.runs()) == 2:
            break
    try:
        assert statuses(place.runs()) == {"FINISHED": 1, "RUNNING": 1}
    finally:
        tracker.close()


def test_a_retried_failure_is_replaced(place: Place) -> None:
    sweep = place.record(FIXED)
    coordinator = Coordinator(place.ledger, sweep)
    work = coordinator.next_work()
    failure = RunResult("failed", failure="interrupted", message="the worker died")
    coordinator.land(work, failure)
    place.sync(sweep)
    assert statuses(place.runs("fixed")) == {"FAILED": 1, "KILLED": 1}
    place.run(sweep)
    assert place.sync(sweep) == (3, 0)
    assert statuses(place.runs("fixed")) == {"FINISHED": 3}
    assert place.sync(sweep) == (0, 3)


def test_warnings_are_a_tag(place: Place) -> None:
    sweep = place.record(FIXED.replace("constant", "suspect"))
    place.run(sweep)
    place.sync(sweep)
    child, *_ = (run for run in place.runs("fixed") if tag(run, "seed") == "1")
    (warning,) = place.ledger.find_runs(tag(child, "run"))[0].warnings
    assert warning
    assert tag(child, "warnings") == warning


def test_two_documents_of_one_name_share_runs_but_no_experiment(place: Place) -> None:
    first = place.record(SEARCHED)
    place.run(first)
    second = place.record(SEARCHED.replace("seeds: 3", "seeds: 4"))
    tracker = place.tracker(second)
    place.run(second, tracker)
    assert tracker.close() is None
    place.sync(first)
    named, other = sorted(place.experiments())
    assert named == "demo"  # who comes first
    assert other.startswith("demo-")
    assert len(place.runs(named)) == 1 + 3 + 4
    assert len(place.runs(other)) == 1 + 3 + 3


def test_a_run_that_another_study_did_has_its_child(place: Place) -> None:
    grid = SEARCHED.replace("[constant]", "[{name: constant, parameters: {x: {values: [0.5]}}}]")
    place.run(place.record(grid))
    again = place.record(grid.replace("name: demo", "name: again").replace("random", "grid"))
    tracker = place.tracker(again)
    place.run(again, tracker)
    assert tracker.close() is None
    (trial,) = [run for run in place.runs("again") if tag(run, "phase") == "search"]
    assert "validation/closeness" in trial.data.metrics


def draw(sweep: SweepRecord) -> Mapping[str, Mapping[str, Figure]]:
    return {"guess": {"scores": Figure()}}


def broken(sweep: SweepRecord) -> Mapping[str, Mapping[str, Figure]]:
    raise RuntimeError("no paint")


def test_figures_are_drawn_when_runs_have_come_in(place: Place) -> None:
    calls = 0

    def counted(sweep: SweepRecord) -> Mapping[str, Mapping[str, Figure]]:
        nonlocal calls
        calls += 1
        return draw(sweep)

    sweep = place.record(FIXED)
    place.run(sweep, n_runs=1)
    place.sync(sweep, draw=counted)
    place.sync(sweep, draw=counted)
    assert calls == 1
    place.run(sweep)
    place.sync(sweep, draw=counted)
    assert calls == 2
    (figure,) = place.artifacts.rglob("figures/scores.png")
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_a_figure_that_fails_fails_nothing(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    sweep = place.record(FIXED)
    place.run(sweep)
    with caplog.at_level(logging.WARNING):
        assert place.sync(sweep, draw=broken) == (3, 0)
    assert "no paint" in caplog.text


def test_importing_the_tracker_imports_no_mlflow() -> None:
    code = (
        "import sys, bhnbench.tracking.tracker, bhnbench.tracking.sync\n"
        "sys.exit(bool({'mlflow', 'torch', 'ray', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_nothing_is_printed(place: Place) -> None:
    sweep = place.record(FIXED)
    place.run(sweep)
    code = (
        "from pathlib import Path\n"
        "from bhnbench.ledger.ledger import Ledger\n"
        "from bhnbench.tracking.sync import sync\n"
        f"ledger = Ledger('sqlite:///{place.folder / 'ledger.db'}')\n"
        f"store = 'sqlite:///{place.folder / 'other' / 'mlflow.db'}'\n"
        f"sync(ledger, ledger.sweeps()[0], store, Path('{place.artifacts}'))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
    assert not Path("mlruns").exists()


def child(place: Place, change: Callable[[RunRecord], RunRecord] = lambda run: run) -> Child:
    sweep = place.record(FIXED)
    place.run(sweep)
    spec = sweep.studies[0].spec
    return Child(
        spec, change(place.ledger.runs([spec.run({}, "evaluate", 1).key]).popitem()[1]), None
    )


def test_a_learning_curve_stands_against_the_number_of_labels(place: Place) -> None:
    tables = {"learning_curve": {"n_labels": [20, 40], "accuracy": [50.0, None]}}
    values = child(place).metrics([(1, {"accuracy": 50.0})], tables)
    assert ("learning_curve/accuracy", 50.0, 20) in values
    assert ("accuracy", 50.0, 1) in values
    assert not [value for value in values if value.step == 40]
    by_row = {"learning_curve": {"accuracy": [50.0, 60.0], "nll": [1.0, 0.5]}}
    values = child(place).metrics([(1, {"accuracy": 50.0})], by_row)
    assert [v[1:] for v in values if v.name == "learning_curve/nll"] == [(1.0, 0), (0.5, 1)]
    assert not [value for value in values if value.name == "learning_curve/accuracy"]


def test_long_curves_are_thinned_and_sent_in_batches(place: Place) -> None:
    sweep = place.record(FIXED)
    coordinator = Coordinator(place.ledger, sweep)
    work = coordinator.next_work()
    points = [(step, {"a": float(step), "b@1": 0.0}) for step in range(1, 5001)]
    coordinator.land(work, RunResult("done", Outcome({"closeness": -0.1}), points=points))
    place.sync(sweep)
    (run,) = [run for run in place.runs("fixed") if parent_of(run) is not None]
    curve = place.curve(run, "a")
    assert len(curve) == 1001
    assert curve[-1] == (5000, 5000.0)
    assert "b_1" in run.data.metrics


def test_thinning_a_long_curve_leaves_out_no_metric_of_few_reports(place: Place) -> None:
    points = [
        (step, {"loss": 0.1} | ({"accuracy": 50.0} if step % 150 == 0 else {}))
        for step in range(1, 3001)
    ]
    values = child(place).metrics(points, {})
    assert [v.step for v in values if v.name == "accuracy"] == [*range(150, 3001, 150)]
    assert len([v for v in values if v.name == "loss"]) == 1001


def test_names_that_mlflow_refuses_are_changed() -> None:
    assert to_key("accuracy@1 %") == "accuracy_1 _"
    assert to_key("/a//../b") == "a/b"
    assert to_key("@") == "_"
    assert to_key("..") == "_"
