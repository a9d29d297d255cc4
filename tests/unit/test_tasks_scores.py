"""The uncertainty scores that detectors rank images by, and their figures."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bhnbench.contract import Outcome
from bhnbench.uncertainty import class_probabilities
from bhnbench_tasks.detectors import Ranked, chosen_score, tables
from bhnbench_tasks.figures.histograms import DrawHistograms, most_chosen
from bhnbench_tasks.figures.roc import draw_roc
from bhnbench_tasks.scores import SCORES, largest_score, uncertainty_scores


@pytest.mark.parametrize("n_classes", [2, 9])
def test_no_score_exceeds_its_largest(n_classes):
    """Samples that are sure of every class in turn reach it, but for the entropy of each."""
    sure = 1000 * torch.eye(n_classes).unsqueeze(1)
    scores = uncertainty_scores(sure)
    for name in SCORES:
        assert scores[name].item() == pytest.approx(largest_score(name, n_classes))
    random = uncertainty_scores(5 * torch.randn(50, 500, n_classes))
    assert all((random[name] <= largest_score(name, n_classes)).all() for name in SCORES)


def test_scores_of_many_images_are_those_of_each():
    logits = torch.randn(3, 2100, 10)
    scores = uncertainty_scores(logits)
    for name, score in SCORES.items():
        np.testing.assert_allclose(scores[name], score(class_probabilities(logits)), atol=1e-12)


def test_least_confidence_is_one_minus_the_largest_mean_probability():
    logits = 3 * torch.randn(7, 50, 10)
    expected = 1 - logits.double().softmax(-1).mean(0).max(-1).values
    np.testing.assert_allclose(
        uncertainty_scores(logits)["least_confidence"], expected, atol=1e-14
    )
    surest = torch.tensor([[[0.0, 50.0]], [[0.0, 50.0]]])
    assert uncertainty_scores(surest)["least_confidence"].item() == pytest.approx(
        np.exp(-50.0), rel=1e-6
    )


def test_samples_that_are_equal_do_not_disagree():
    """Not even by rounding, which would put images in an order."""
    logits = (7 * torch.randn(1, 3000, 10)).expand(100, -1, -1)
    scores = uncertainty_scores(logits)
    assert scores["bald"].count_nonzero() == scores["mean_sd"].count_nonzero() == 0
    assert scores["entropy"].unique().numel() > 2900


def ranked(**scores: list[float]) -> Ranked:
    values = {name: torch.tensor(scores.get(name, [0.0, 0.0])) for name in SCORES}
    return Ranked(values, torch.tensor([True, False]))


def test_the_best_score_on_validation_is_chosen_the_first_of_equals():
    assert chosen_score("auto", ranked(mean_sd=[0.2, 0.1])) == "mean_sd"
    assert chosen_score("auto", ranked(bald=[0.2, 0.1], mean_sd=[0.2, 0.1])) == "bald"
    assert chosen_score("auto", ranked()) == "entropy"
    assert chosen_score("entropy", ranked(mean_sd=[0.2, 0.1])) == "entropy"


def outcome(chosen: str, entropy: list[float]) -> Outcome:
    return Outcome({}, tables(ranked(), ranked(entropy=entropy), chosen, n_classes=10))


def test_the_histogram_shows_the_score_that_most_seeds_chose():
    runs = [outcome("entropy", [2.2, 0.0]), outcome("bald", [0.0, 0.0])]
    assert most_chosen(runs) == "entropy"
    assert most_chosen([*runs, runs[1]]) == "bald"
    figure = DrawHistograms("outliers", "ordinary images")({"a": runs, "b": runs[:1], "c": []})
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in panels] == ["a\nentropy", "b\nentropy"]
    _, ordinary, _, outliers = panels[0].patches
    assert ordinary.get_data().values[[0, -1]].tolist() == [100, 0]
    assert outliers.get_data().values.max() == 50  # of two seeds, one in the first bin


def test_the_roc_figure_has_a_line_a_method_and_that_of_chance():
    figure = draw_roc({"a": [outcome("entropy", [1.0, 0.0])], "b": []})
    (axes,) = figure.axes
    chance, line = axes.lines
    assert list(chance.get_xdata()) == list(chance.get_ydata()) == [0, 100]
    assert line.get_ydata().min() == 100  # perfect: everything is found at once
