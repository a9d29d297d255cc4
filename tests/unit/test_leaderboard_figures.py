"""The leaderboard's figures, from real ledgers filled by the coordinator."""

from __future__ import annotations

import numpy as np
import pytest
from bhnbench_doubles.ranked_sweeps import document, done, scores_of

from bhnbench.errors import ContractError
from bhnbench.leaderboard.plots import draw_figures, save_figures


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
