"""The leaderboard, from real ledgers filled by the coordinator."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from bhnbench import plugins
from bhnbench.contract import Outcome
from bhnbench.engine.coordinator import Coordinator, Work
from bhnbench.errors import ContractError, InvalidSweepError
from bhnbench.leaderboard import numbers
from bhnbench.leaderboard.board import Leaderboard
from bhnbench.leaderboard.plots import draw_figures, save_figures
from bhnbench.leaderboard.ranking import build_leaderboard, rank
from bhnbench.leaderboard.tables import render
from bhnbench.ledger.ledger import Ledger
from bhnbench.ledger.records import SweepRecord
from bhnbench.runs import Cost, RunResult
from bhnbench.statistics import Summary, summarize
from bhnbench.sweep.document import read_sweep

EXAM = '''
"""A stranger's task, which nobody runs here: two metrics, two figures."""

from dataclasses import dataclass

from bhnbench.contract import Metric, Task
from bhnbench.space import setting


def draw_curve(outcomes):
    from matplotlib.figure import Figure

    figure = Figure()
    axes = figure.subplots()
    for label, runs in outcomes.items():
        for run in runs:
            axes.plot(run.tables["curve"]["step"], run.tables["curve"]["points"], label=label)
    return figure


@dataclass(frozen=True, kw_only=True)
class Exam(Task):
    metrics = (Metric("points", "maximize", "%"), Metric("errors", "minimize", ""))
    figures = {"curve": draw_curve}

    level: int = setting(1, "difficulty")

    def evaluate(self, fit, *, holdout, rng, report, checkpoint):
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Unpaintable(Exam):
    figures = {"curve": lambda outcomes: 1 / 0}
'''


@pytest.fixture(autouse=True)
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A stranger's package stands on the path, as if installed."""
    site = tmp_path / "site"
    info = site / "bhnbench_exam-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "bhnbench_exam.py").write_text(EXAM)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bhnbench-exam\nVersion: 1.0\n")
    entries = "exam = bhnbench_exam:Exam\nunpaintable = bhnbench_exam:Unpaintable\n"
    (info / "entry_points.txt").write_text(f"[bhnbench.tasks]\n{entries}")
    monkeypatch.syspath_prepend(str(site))
    plugins.installed.cache_clear()
    yield
    plugins.installed.cache_clear()
    sys.modules.pop("bhnbench_exam", None)


@dataclass
class Bench:
    """A ledger with one sweep."""

    ledger: Ledger
    record: SweepRecord

    def run(self, answer: Callable[[str, Work], RunResult], limit: int = 1000) -> None:
        """Land every run as ``answer(method label, work)`` says."""
        coordinator = Coordinator(self.ledger, self.record)
        for _ in range(limit):
            work = coordinator.next_work()
            if work is None:
                return
            label = self.record.studies[work.study].spec.labels[1]
            coordinator.land(work, answer(label, work))

    def board(self, metric: str | None = None) -> Leaderboard:
        return build_leaderboard(self.ledger, self.record, metric)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Callable[[str], Bench]]:
    ledgers = []

    def make(text: str) -> Bench:
        path = tmp_path / "sweep.yaml"
        path.write_text(text)
        ledger = Ledger(f"sqlite:///{tmp_path / f'ledger-{len(ledgers)}.db'}", create=True)
        ledgers.append(ledger)
        return Bench(ledger, ledger.record_sweep(read_sweep(path)))

    yield make
    for ledger in ledgers:
        ledger.close()


def document(labels: str, seeds: int, *, task: str = "exam", search: str = "") -> str:
    """Methods that differ: in x, or in its range where it is searched."""
    fixed = ", parameters: {{x: {{min: 0.0, max: 0.{}}}}}" if search else ", x: 0.{}"
    methods = "\n".join(
        f"  - {{name: constant, label: {label}{fixed.format(i + 1)}}}"
        for i, label in enumerate(labels)
    )
    evaluate = f"evaluate: {{seeds: {seeds}}}\n"
    return f"name: finals\ntasks: [{task}]\nmethods:\n{methods}\n{search}{evaluate}"


def done(points: float, seconds: float = 1.0, memory: float | None = 100.0) -> RunResult:
    steps = np.array([1.0, 2.0])
    curve = {"step": steps, "points": np.array([points / 2, np.nan])}
    scores = {"points": points, "errors": 100 - points}
    return RunResult(
        "done", Outcome(scores, {"curve": curve}), cost=Cost(seconds, seconds / 2, memory)
    )


DIVERGED = RunResult("failed", failure="diverged", message="loss is nan\nat step 3")


def scores_of(table: Mapping[str, list[float | None]]) -> Callable[[str, Work], RunResult]:
    """Answers from ``{label: scores by seed}``; None diverges."""

    def answer(label: str, work: Work) -> RunResult:
        points = table[label][work.spec.seed - 1]
        return DIVERGED if points is None else done(points)

    return answer


def places(scores: Mapping[str, list[float]], direction: str = "maximize") -> dict[str, int]:
    by_seed = {label: dict(enumerate(values)) for label, values in scores.items()}
    return {place.label: place.rank for place in rank(by_seed, direction)}


# --- the rule ---------------------------------------------------------------------------------


def test_methods_that_cannot_be_told_apart_share_a_rank_and_the_next_rank_counts_them():
    scores = {
        "far": [70.0, 71.0, 72.0],
        "also far": [70.1, 70.8, 72.2],
        "close": [90.3, 91.4, 91.6],
        "best": [90.5, 91.0, 92.0],
    }
    assert places(scores) == {"best": 1, "close": 1, "also far": 3, "far": 3}


def test_the_direction_decides_which_mean_is_best():
    scores = {"high": [2.0, 2.1, 2.2], "low": [1.0, 1.1, 1.25]}
    assert places(scores, "maximize") == {"high": 1, "low": 2}
    assert places(scores, "minimize") == {"low": 1, "high": 2}


def test_pairing_by_seed_sees_what_the_spread_over_seeds_hides():
    hard_and_easy = [50.0, 60.0, 70.0, 80.0, 90.0]
    better = [score + 1 + 0.01 * i for i, score in enumerate(hard_and_easy)]
    assert places({"a": hard_and_easy, "b": better}) == {"b": 1, "a": 2}
    assert places({"a": hard_and_easy, "b": better[::-1]}) == {"b": 1, "a": 1}


def test_the_correction_takes_the_number_of_comparisons_into_account():
    best = [10.0, 10.0, 10.0, 10.0]
    beaten = [9.0, 9.9, 8.8, 8.7]  # p = 0.042 on its own
    assert places({"best": best, "beaten": beaten}) == {"best": 1, "beaten": 2}
    other = [9.9, 9.0, 10.6, 10.0]
    assert set(places({"best": best, "beaten": beaten, "other": other}).values()) == {1}


def test_common_seeds_alone_are_compared():
    leader = {1: 9.0, 2: 9.2, 3: 30.0}
    other = {1: 9.5, 2: 9.69, 4: 9.0}  # worse on its own seeds, surely better on the common ones
    first, second = rank({"other": other, "leader": leader}, "maximize")
    assert (first.label, first.rank, second.rank) == ("leader", 1, 1)
    assert second.versus is not None
    assert second.versus.difference.n == 2
    assert second.versus.difference.mean == pytest.approx(0.495)
    assert second.versus.p_value is not None
    assert second.versus.p_value < 0.05


@pytest.mark.parametrize("other", [{2: 1.0, 3: 1.1}, {1: 1.0, 3: 1.1}])
def test_fewer_than_two_common_seeds_tell_nothing(other):
    first, second = rank({"a": {1: 99.0}, "b": other}, "maximize")
    assert (first.label, second.rank) == ("a", 1)
    assert second.versus is None or second.versus.p_value is None


def test_nobody_and_one_alone():
    assert rank({}, "minimize") == []
    assert places({"a": [1.0]}) == {"a": 1}


# --- from the ledger --------------------------------------------------------------------------


def test_rows_tell_scores_costs_and_the_way_back(bench):
    b = bench(document("ab", 3))
    b.run(scores_of({"a": [80.0, 81.0, 82.5], "b": [90.0, 91.0, 92.0]}))
    (table,) = b.board().tables
    assert (table.label, table.metric, table.direction, table.unit) == (
        "exam", "points", "maximize", "%",
    )  # fmt: skip
    best, beaten = table.rows
    assert (best.label, best.rank, beaten.rank) == ("b", 1, 2)
    assert best.score == summarize([90.0, 91.0, 92.0])
    assert best.metrics["errors"] == summarize([10.0, 9.0, 8.0])
    assert beaten.versus is not None
    assert beaten.versus.difference == summarize([-10.0, -10.0, -9.5])
    assert best.cost.fit_seconds == 1.0
    assert best.cost.total_seconds == 4.5
    assert best.cost.peak_memory_mb == 100.0
    assert best.chosen is not None
    assert best.chosen.configuration == {"x": 0.2}
    assert best.gap == best.reason == ""
    for run in best.seeds:
        assert run.run_id is not None
        (record,) = b.ledger.find_runs(str(run.run_id))
        assert (record.key, record.spec.seed) == (run.run_key, run.seed)


def test_the_search_shows_the_chosen_trial_and_its_failures(bench):
    b = bench(document("a", 2, search="search: {sampler: random, trials: 4}\n"))

    def answer(label: str, work: Work) -> RunResult:
        if work.trial is None:
            return done(50.0)
        return {1: done(88.0), 2: DIVERGED}.get(work.trial.number, done(70.0))

    b.run(answer)
    (row,) = b.board().tables[0].rows
    assert row.chosen is not None
    assert (row.chosen.trial, row.chosen.validation) == (1, 88.0)
    assert row.chosen.searched == ("x",)
    assert row.score == summarize([50.0, 50.0])
    assert (row.search.failures, row.search.over) == ({"diverged": 1}, True)
    assert "best of 4 trials: number 1, validation 88, 1 failed; runs " in render(b.board())


FIXED = """\
name: finals
tasks: [exam, {name: exam, level: 2}]
methods:
  - {name: failing, label: told, how: diverge, mark: {n_members: 2}, parameters: {x: {value: 0.1}}}
  - {name: failing, label: searched, mark: [0.1, 0.3]}
  - constant
search: {sampler: random, trials: 2}
evaluate: {seeds: 1}
"""


def test_what_the_sweep_file_sets_of_a_method_stands_with_what_was_searched(bench):
    b = bench(FIXED)
    b.run(lambda label, work: done(50.0))
    for table in b.board().tables:
        rows = {row.label: row.chosen for row in table.rows}
        assert {label: chosen.fixed for label, chosen in rows.items()} == {
            "told": ("how", "mark", "x"), "searched": ("mark",), "constant": (),
        }  # fmt: skip
    for format_ in ("table", "markdown"):
        text = " ".join(render(b.board(), format_).replace("`", "").split())
        assert 'told: how=diverge, mark="n_members: 2", x=0.1 (nothing searched; run' in text
        assert re.search(r'searched: x=[\d.]+; fixed: mark="0.1, 0.3" \(best of [^;]+; run', text)
        assert re.search(r"constant: x=[\d.]+ \(best of [^;]+; run", text)


def test_a_method_as_it_is_by_default_is_said_to_be_so(bench):
    b = bench(document("a", 2).replace(", x: 0.1", ""))
    assert "a: defaults (nothing searched; no runs yet)" in render(b.board())
    b.run(lambda label, work: DIVERGED, limit=1)
    assert "a: defaults (nothing searched; no run done, 1 failed)" in render(b.board())


def test_gaps_are_shown_and_explained(bench):
    b = bench(document("abc", 3))
    error = RunResult("failed", failure="error", message="RuntimeError: the plugin broke")

    def answer(label: str, work: Work) -> RunResult:
        if label == "c":
            return error
        return scores_of({"a": [80.0, None, None], "b": [70.0, 71.0, 72.0]})(label, work)

    b.run(answer)
    a, full, nothing = b.board().tables[0].rows
    assert (a.label, a.gap, a.rank, full.rank) == ("a", "1/3: 2 diverged", 1, 1)
    assert (nothing.label, nothing.rank, nothing.score) == ("c", None, None)
    assert nothing.reason == "no evaluation run is done (3 error)"
    for format_ in ("table", "markdown"):
        text = " ".join(render(b.board(), format_).split())
        assert "a 1/3: 2 diverged; seed 2 is run 4: loss is nan" in text
        assert "c: no rank, no evaluation run is done (3 error); seed 1 is run 3: " in text
        assert "at step 3" not in text
        assert "unfinished: 3 runs left" in text


def test_a_search_without_a_result_is_no_rank(bench):
    b = bench(document("ab", 2, search="search: {sampler: random, trials: 2}\n"))

    def answer(label: str, work: Work) -> RunResult:
        pruned = replace(done(1.0), state="pruned", outcome=None)
        if label == "b" and work.trial is not None:
            return DIVERGED if work.trial.number else pruned
        return done(50.0)

    b.run(answer)
    first, second = b.board().tables[0].rows
    assert (first.label, second.label, second.rank, second.chosen) == ("a", "b", None, None)
    assert second.reason == (
        "none of 2 trials is done (1 diverged, 1 pruned), such as run 4: loss is nan"
    )
    assert second.gap == "0/2: 2 not run"


def test_a_search_under_way_is_said_to_be_so(bench):
    b = bench(document("ab", 2, search="search: {sampler: random, trials: 3}\n"))
    b.run(lambda label, work: done(50.0), limit=4)
    board = b.board()
    assert [row.rank for row in board.tables[0].rows] == [None, None]
    assert {row.reason for row in board.tables[0].rows} == {
        "search unfinished: 2 of 3 trials"
    }  # fmt: skip
    assert board.n_left == 6
    for format_ in ("table", "markdown", "csv", "json"):
        assert "search unfinished" in render(board, format_)
    assert draw_figures(b.ledger, b.record) == {"exam": {}}


def test_a_method_whose_runs_carry_warnings_is_marked(bench):
    b = bench(document("ab", 3))
    suspect = {2: ("samples must differ", "more"), 3: ("samples must be finite",)}

    def answer(label: str, work: Work) -> RunResult:
        result = DIVERGED if work.spec.seed == 3 else done(90.0 if label == "b" else 50.0)
        return replace(result, warnings=suspect.get(work.spec.seed, ()) if label == "a" else ())

    b.run(answer)
    plain, warned = b.board().tables[0].rows
    assert (plain.label, plain.warned) == ("b", [])
    assert [run.warnings for run in warned.warned] == [suspect[2], suspect[3]]
    note = "warned (!): a: 2 of 3 evaluation runs, such as run 3: samples must differ"
    for format_ in ("table", "markdown"):
        text = " ".join(render(b.board(), format_).split())
        assert text.count("a (!)") == 1
        assert "b (!)" not in text
        assert note in text
    lines = list(csv.DictReader(io.StringIO(render(b.board(), "csv"))))
    assert [(line["method"], line["n_warned"]) for line in lines] == [("b", "0"), ("a", "2")]


def test_an_empty_ledger_still_has_a_leaderboard(bench):
    b = bench(document("a", 2))
    (row,) = b.board().tables[0].rows
    assert row.reason == "no evaluation run is done (2 not run)"
    assert "0/2" in render(b.board())


def test_one_seed_has_no_interval_and_one_rank(bench):
    b = bench(document("ab", 1))
    b.run(scores_of({"a": [80.0], "b": [90.0]}))
    text = render(b.board())
    assert [row.rank for row in b.board().tables[0].rows] == [1, 1]
    assert "one seed: no intervals" in text
    assert "± 0" not in text


# --- another metric ---------------------------------------------------------------------------


def test_another_metric_has_its_own_direction_and_unit(bench):
    b = bench(document("ab", 2))
    b.run(scores_of({"a": [80.0, 81.0], "b": [90.0, 91.0]}))
    (table,) = b.board("errors").tables
    assert (table.metric, table.direction, table.unit) == ("errors", "minimize", "")
    assert (table.chosen_by, table.rows[0].label) == ("points", "b")
    assert table.rows[0].score == summarize([10.0, 9.0])
    assert "errors, ↓ lower is better" in render(b.board("errors"))


def test_an_unknown_metric_names_the_nearest(bench):
    b = bench(document("a", 1))
    rule = r"--metric: no task of the sweep has 'error'; did you mean 'errors'\?"
    with pytest.raises(InvalidSweepError, match=rule):
        b.board("error")


def test_tasks_without_the_metric_are_left_out_and_named(bench):
    b = bench(document("a", 1, task="exam, guess"))
    board = b.board("errors")
    assert [table.label for table in board.tables] == ["exam"]
    assert board.without_metric == ("guess",)
    for format_ in ("table", "markdown"):
        assert "guess" in render(board, format_)


# --- formats ----------------------------------------------------------------------------------


@pytest.fixture
def small(bench) -> Leaderboard:
    b = bench(document("ab", 3))
    b.run(scores_of({"a": [80.0, 81.0, None], "b": [90.0, 91.5, 92.0]}))
    return b.board()


def test_markdown_is_exact(small):
    assert (
        render(small, "markdown")
        == """\
### finals · exam · 3 seeds on test data

points in %, ↑ higher is better

| rank | method | points (%) ↑ | vs best | p | seeds | errors | fit | study | memory |
| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| 1 | b | 91.2 ± 2.6 | best |  | 3/3 | 8.8 ± 2.6 | 1 s | 4.5 s | 100 MB |
| 2 | a | 80.5 ± 6.4 | -10.2 ± 3.2 | 0.016 | 2/3 | 19.5 ± 6.4 | 1 s | 3 s | 100 MB |

- missing: a 2/3: 1 diverged; seed 3 is run 5: loss is nan
- `b`: x=0.2 (nothing searched; runs 2, 4, 6)
- `a`: x=0.1 (nothing searched; runs 1, 3)

rank: shared with the best by all methods that are not found worse (p < 0.05); the others are \
ranked the same way among themselves. ±: half the 95 % t interval of the mean over seeds. \
vs best: mean difference on common seeds; p: its paired t test, Holm-corrected.
fit: mean of an evaluation run. study: all its runs, search included. memory: highest peak."""
    )


def test_markdown_names_the_code_behind_the_numbers(bench):
    b = bench(document("ab", 2))
    commits = {"a": {"commit": 40 * "1", "dirty": True}, "b": {"commit": 40 * "2", "dirty": False}}

    def answer(label: str, work: Work) -> RunResult:
        method = {"package": "mine 1.0", "git": commits[label]}
        task = {"package": "theirs 2.0", "git": None}
        return replace(done(50.0), provenance={"plugins": {"task": task, "method": method}})

    b.run(answer)
    board = b.board()
    assert board.tables[0].code == (
        "mine 1.0 at commit 111111111111 with uncommitted changes",
        "mine 1.0 at commit 222222222222",
        "theirs 2.0",
    )
    assert "\n- code: mine 1.0 at commit 222222222222\n" in render(board, "markdown")


def test_csv_is_exact(small):
    lines = list(csv.DictReader(io.StringIO(render(small, "csv"))))
    assert not render(small, "csv").endswith("\n")
    assert list(lines[0]) == [
        "sweep", "task", "method", "metric", "direction", "unit", "rank",
        "mean", "low", "high", "sd", "n", "n_planned", "gap",
        "vs_best_mean", "vs_best_low", "vs_best_high", "vs_best_sd", "vs_best_n",
        "vs_best_p_value", "validation", "trial",
        "fit_seconds", "total_seconds", "peak_memory_mb", "n_warned", "runs", "configuration",
        "errors_mean", "errors_low", "errors_high", "errors_sd", "errors_n",
    ]  # fmt: skip
    best, beaten = lines
    assert (best["method"], best["rank"], best["gap"], best["vs_best_mean"]) == ("b", "1", "", "")
    assert float(best["mean"]) == summarize([90.0, 91.5, 92.0]).mean
    assert (beaten["mean"], beaten["n"], beaten["n_planned"]) == ("80.5", "2", "3")
    assert (beaten["gap"], beaten["runs"]) == ("2/3: 1 diverged", "1 3")
    assert (beaten["vs_best_mean"], beaten["errors_mean"]) == ("-10.25", "19.5")
    assert json.loads(beaten["configuration"]) == {"x": 0.1}


def test_json_holds_everything(small):
    content = json.loads(render(small, "json"))
    assert {k: content[k] for k in ("sweep", "n_seeds", "n_left", "level")} == {
        "sweep": "finals", "n_seeds": 3, "n_left": 0, "level": 0.95,
    }  # fmt: skip
    (task,) = content["tasks"]
    assert task["metric"] == "points"
    _, a = task["methods"]
    key = small.tables[0].rows[1].seeds[1].run_key
    assert a["seeds"][1] == {
        "seed": 2, "state": "done", "run_id": 3, "run_key": key,
        "scores": {"points": 81.0, "errors": 19.0}, "failure": None, "message": "", "warnings": [],
    }  # fmt: skip
    assert a["seeds"][2]["failure"] == "diverged"
    assert a["seeds"][2]["message"] == "loss is nan\nat step 3"
    assert a["gap"] == "2/3: 1 diverged"
    assert a["run_ids"] == [1, 3]
    assert a["versus"]["difference"]["mean"] == -10.25
    assert a["chosen"]["configuration"] == {"x": 0.1}
    assert (a["chosen"]["fixed"], a["chosen"]["searched"]) == (["x"], [])
    assert a["cost"]["peak_memory_mb"] == 100.0


@pytest.mark.parametrize("width", [60, 80, 100, 300])
def test_the_terminal_table_fits_and_is_plain_when_piped(small, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    text = render(small)
    assert max(map(len, text.splitlines())) <= min(width, 100)
    assert "\x1b" not in text
    assert [line.split() for line in text.splitlines()[5:7]] == [
        ["1", "b", "91.2", "±", "2.6", "best", "3/3"],
        ["2", "a", "80.5", "±", "6.4", "-10.2", "±", "3.2", "0.016", "2/3"],
    ]


@pytest.mark.parametrize("width", [60, 80, 81, 100])
def test_many_metrics_go_below_one_another(small, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    names = [f"quite_a_long_metric_{i}" for i in range(8)]
    (table,) = small.tables
    rows = [replace(r, metrics=r.metrics | dict.fromkeys(names, r.score)) for r in table.rows]
    board = replace(small, tables=(replace(table, rows=tuple(rows)),))
    text = render(board)
    assert max(map(len, text.splitlines())) <= 100
    assert all(name in text for name in names)


def test_labels_are_no_markup(bench):
    b = bench(document("a", 1).replace("label: a", 'label: "[red]a|b[/red]:smile:"'))
    assert "[red]a|b[/red]:smile:" in render(b.board())
    assert r"| [red]a\|b[/red]:smile: |" in render(b.board(), "markdown")


def test_an_unknown_format_names_the_nearest(small):
    with pytest.raises(InvalidSweepError, match="did you mean 'markdown'"):
        render(small, "markdwn")


@pytest.mark.parametrize(
    ("mean", "half_width", "text"),
    [
        (91.2345, 0.4123, "91.23 ± 0.41"),
        (91.2345, 12.3, "91 ± 12"),
        (1234.5, 345.6, "1234 ± 346"),
        (-0.001, 0.21, "0.00 ± 0.21"),
        (0.0000012345, 0.00000002, "1.234e-06 ± 2e-08"),
        (0.5, 0.0, "0.5 ± 0"),
        (0.123456, None, "0.1235"),
    ],
)
def test_digits_follow_the_interval(mean, half_width, text):
    sd = None if half_width is None else half_width / (12.706204736 / 2**0.5)
    summary = Summary(mean, sd, None, None, 1 if half_width is None else 2)
    assert numbers.estimate(summary) == text


def test_small_numbers_in_words():
    assert numbers.id_ranges([5, 3, 4, 9]) == "3-5, 9"
    assert numbers.id_ranges([]) == ""
    assert [numbers.duration(s) for s in (None, 0.0123, 119.0, 130.0, 9000.0)] == [
        "", "0.0123 s", "119 s", "2.17 min", "2.5 h",
    ]  # fmt: skip
    assert [numbers.p_value(p) for p in (None, 0.0, 0.04, 1.0)] == ["?", "<0.001", "0.04", "1"]


# --- figures ----------------------------------------------------------------------------------


def test_figures_are_drawn_from_the_runs_tables(bench, tmp_path):
    b = bench(document("abc", 2))
    b.run(scores_of({"a": [80.0, 82.0], "b": [90.0, None], "c": [None, None]}))
    figures = draw_figures(b.ledger, b.record)["exam"]
    assert list(figures) == ["scores", "curve"]
    lines = figures["curve"].axes[0].lines
    assert [line.get_label() for line in lines] == ["a", "a", "b"]
    np.testing.assert_array_equal(lines[1].get_ydata(), [41.0, np.nan])
    (axes,) = figures["scores"].axes
    assert [t.get_text() for t in axes.get_yticklabels()] == ["b (1/2 seeds)  1", "a  1"]
    assert axes.get_xlabel() == "points (%) on test data, ↑ higher is better"
    paths = save_figures(b.ledger, b.record, tmp_path / "new" / "figures")
    assert [path.name for path in paths] == ["exam-scores.png", "exam-curve.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


@pytest.mark.parametrize(
    ("scores", "low", "high"),
    [
        ([99.0, 100.0, 97.0], (80, 97), (100, 100)),
        ([0.0, 3.0, 1.0], (0, 0), (3, 20)),
        ([100.0, 100.0, 100.0], (80, 100), (100, 100)),
        ([-3.0, 101.0, 50.0], (-3, -3), (101, 101)),  # no share, though in %
    ],
)
def test_an_axis_of_shares_ends_at_0_and_100_percent(bench, scores, low, high):
    b = bench(document("a", 3))
    b.run(scores_of({"a": scores}))
    (axes,) = draw_figures(b.ledger, b.record)["exam"]["scores"].axes
    left, right = axes.get_xlim()
    assert low[0] <= left <= low[1]
    assert high[0] <= right <= high[1]


def test_labels_make_safe_and_different_file_names(bench, tmp_path):
    tasks = "{name: exam, label: a/b}, {name: exam, label: a b, level: 2}"
    b = bench(document("a", 1, task=tasks))
    b.run(lambda label, work: done(50.0))
    names = [path.name for path in save_figures(b.ledger, b.record, tmp_path)]
    assert names == ["a_b-scores.png", "a_b-curve.png", "a_b-scores-2.png", "a_b-curve-2.png"]


def test_a_figure_that_cannot_be_drawn_is_the_tasks_fault(bench):
    b = bench(document("a", 1, task="unpaintable"))
    b.run(lambda label, work: done(50.0))
    rule = r"task unpaintable: figure 'curve' .*ZeroDivisionError"
    with pytest.raises(ContractError, match=rule):
        draw_figures(b.ledger, b.record)


# --- imports ----------------------------------------------------------------------------------


@pytest.mark.parametrize("module", ["ranking", "tables", "plots"])
def test_nothing_heavy_is_imported(module):
    code = (
        f"import bhnbench.leaderboard.{module}, sys;"
        "print(sorted({m.partition('.')[0] for m in sys.modules}"
        " & {'torch', 'ray', 'mlflow', 'sklearn', 'matplotlib', 'optuna', 'scipy'}))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_the_plain_leaderboard_loads_no_plugin(small, bench, tmp_path):
    b = bench(document("ab", 2))
    b.run(scores_of({"a": [80.0, 81.0], "b": [90.0, 91.0]}))
    code = (
        "import sys; from bhnbench.ledger.ledger import Ledger;"
        "from bhnbench.leaderboard.ranking import build_leaderboard;"
        "from bhnbench.leaderboard.tables import render\n"
        "with Ledger(sys.argv[1]) as ledger:\n"
        "    board = build_leaderboard(ledger, ledger.sweeps()[0])\n"
        "for format_ in ('table', 'markdown', 'csv', 'json'): assert render(board, format_)\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules}"
        " & {'torch', 'ray', 'mlflow', 'sklearn', 'matplotlib', 'optuna', 'bhnbench_exam'}))"
    )
    address = f"sqlite:///{tmp_path / 'ledger-1.db'}"
    ran = subprocess.run(
        [sys.executable, "-c", code, address], capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "[]"
