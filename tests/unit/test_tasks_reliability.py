"""Reliability diagrams: pooled over seeds, one panel a method."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
from scipy.stats import binomtest

from bhnbench.contract import Outcome
from bhnbench_tasks.digit_classification import DigitClassification
from bhnbench_tasks.figures.reliability import draw_reliability, pool, wilson


def outcome(n: list, confidence: list, accuracy: list) -> Outcome:
    columns = {"n": n, "confidence": confidence, "accuracy": accuracy}
    table = {name: np.array(column, dtype=float) for name, column in columns.items()}
    return Outcome({}, {"reliability": table})


ONE = outcome([0, 0, 1, 3], [0, 0, 60, 90], [0, 0, 0, 100])
OTHER = outcome([0, 2, 3, 0], [0, 40, 64, 0], [0, 50, 100, 0])


def test_seeds_are_pooled_by_their_examples():
    n, confidence, accuracy = pool([ONE, OTHER])
    assert n.tolist() == [0, 2, 4, 3]
    assert confidence.tolist() == pytest.approx([0, 40, (60 + 3 * 64) / 4, 90])
    assert accuracy.tolist() == pytest.approx([0, 50, 75, 100])


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (1, 1), (0, 30), (17, 30), (30, 30), (997, 1000)])
def test_the_interval_is_scipys(hits, n):
    expected = binomtest(hits, n).proportion_ci(0.95, method="wilson")
    low, high = wilson(np.array([100 * hits / n]), np.array([n]))
    assert low[0] == pytest.approx(100 * expected.low, abs=1e-4)
    assert high[0] == pytest.approx(100 * expected.high, abs=1e-4)


def test_a_panel_shows_filled_bins_and_the_share_of_each():
    figure = draw_reliability({"a": [ONE, OTHER], "none": [], "b": [ONE]})
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in panels] == ["a", "b"]
    diagonal, points = panels[0].lines
    np.testing.assert_array_equal(diagonal.get_xdata(), diagonal.get_ydata())
    np.testing.assert_allclose(points.get_xdata(), [40, 63, 90])
    np.testing.assert_allclose(points.get_ydata(), [50, 75, 100])
    heights = [bar.get_height() for bar in panels[0].patches]
    assert heights == pytest.approx([0, 200 / 9, 400 / 9, 300 / 9])
    assert figure.get_suptitle() == "seeds pooled: 1 to 2"


def test_without_outcomes_the_figure_is_empty():
    buffer = io.BytesIO()
    draw_reliability({"a": []}).savefig(buffer, format="png")
    assert len(buffer.getvalue()) > 1000


def test_the_task_draws_it():
    draw = DigitClassification.figures["reliability"]
    assert pickle.loads(pickle.dumps(draw)) is draw_reliability
