"""The leaderboard's ranks and rows, from real ledgers filled by the coordinator."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import replace

import pytest
from bhnbench_doubles.ranked_sweeps import DIVERGED, document, done, scores_of

from bhnbench.engine.coordinator import Work
from bhnbench.errors import InvalidSweepError
from bhnbench.leaderboard.plots import draw_figures
from bhnbench.leaderboard.ranking import rank
from bhnbench.leaderboard.tables import render
from bhnbench.runs import RunResult
from bhnbench.statistics import summarize


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
