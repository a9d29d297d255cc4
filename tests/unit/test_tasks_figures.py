"""Figures: drawn from tables, without matplotlib's global state."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest

from bhnbench.contract import Outcome
from bhnbench_tasks.figures.bands import draw_predictive_bands
from bhnbench_tasks.figures.lines import draw_learning_curve


def curve(shift: float) -> Outcome:
    n_labels = np.array([20.0, 30.0, 40.0])
    return Outcome({}, {"learning_curve": {"n_labels": n_labels, "accuracy": n_labels + shift}})


def band() -> Outcome:
    x = np.linspace(-0.5, 1.5, 9)
    columns = {"x": x, "truth": x, "mean": x, "mean_sd": 0 * x + 0.1, "sd": 0 * x + 0.2}
    return Outcome({}, {"predictive_band": columns, "training_points": {"x": x[:3], "y": x[:3]}})


def png(figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def test_a_learning_curve_shows_the_mean_and_a_t_interval():
    figure = draw_learning_curve({"a": [curve(0), curve(2)], "b": [curve(5)]})
    (axes,) = figure.axes
    line_a, line_b = axes.lines
    np.testing.assert_allclose(line_a.get_ydata(), [21, 31, 41])
    np.testing.assert_allclose(line_b.get_ydata(), [25, 35, 45])
    edges = axes.collections[0].get_paths()[0].vertices[:, 1]
    half_width = 12.706 * 1  # t with one degree of freedom; sd / sqrt(2) is 1
    assert edges.max() == pytest.approx(41 + half_width, abs=1e-3)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b"]
    assert axes.get_ylabel() == "accuracy (%)"
    assert len(png(figure)) > 1000


def test_predictive_bands_have_one_panel_a_method():
    figure = draw_predictive_bands({name: [band(), band()] for name in "abcd"})
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in shown] == list("abcd")
    assert len(png(figure)) > 1000


@pytest.mark.parametrize("draw", [draw_learning_curve, draw_predictive_bands])
def test_methods_without_outcomes_are_left_out(draw):
    assert len(png(draw({"a": []}))) > 1000


def test_matplotlib_is_imported_when_something_is_drawn():
    code = (
        "import sys\n"
        "from bhnbench_tasks.active_learning import ActiveLearning\n"
        "from bhnbench_tasks.toy_regression import ToyRegression\n"
        "print([m for m in ('matplotlib', 'scipy', 'sklearn') if m in sys.modules])"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert printed.stdout.strip() == "[]"
