"""The leaderboard as text in each of its formats, and what making it imports."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from dataclasses import replace

import pytest
from bhnbench_doubles.ranked_sweeps import document, done, scores_of

from bhnbench.engine.coordinator import Work
from bhnbench.errors import InvalidSweepError
from bhnbench.leaderboard import numbers
from bhnbench.leaderboard.board import Leaderboard
from bhnbench.leaderboard.tables import render
from bhnbench.runs import RunResult
from bhnbench.statistics import Summary, summarize


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
