"""Active learning's two ends: balanced labels to start with, and a learning curve in numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bhnbench.seeds import make_rng
from bhnbench_tasks.active_learning import draw_balanced, labels_to_error, summarise
from bhnbench_tasks.datasets import load_dataset


@pytest.mark.parametrize(("n", "spread"), [(20, {2}), (10, {1}), (25, {2, 3}), (3, {0, 1})])
def test_the_initial_labels_are_balanced(n, spread):
    targets = load_dataset("digits").train.targets
    rows = draw_balanced(targets, n, make_rng(seed=1))
    assert len(set(rows)) == n
    assert set(torch.bincount(targets[rows], minlength=10).tolist()) == spread
    assert set(rows) != set(draw_balanced(targets, n, make_rng(seed=2)))


def test_where_a_class_runs_out_the_others_have_more():
    targets = torch.tensor([0, 1, 1, 1, 1, 2, 2, 2])
    for seed in range(5):
        rows = draw_balanced(targets, 6, make_rng(seed=seed))
        counts = torch.bincount(targets[rows], minlength=3).tolist()
        assert counts in ([1, 3, 2], [1, 2, 3])


def test_the_area_is_the_mean_accuracy_by_the_trapezoid_rule():
    curve = [
        {"n_labels": 10.0, "accuracy": 0.0, "nll": 1.0},
        {"n_labels": 20.0, "accuracy": 100.0, "nll": 1.0},
        {"n_labels": 50.0, "accuracy": 100.0, "nll": 0.5},
    ]
    assert summarise(curve, 10)["area_under_curve"] == pytest.approx((50 * 10 + 100 * 30) / 40)
    assert summarise(curve, 10)["nll"] == 0.5
    assert summarise(curve, 10)["labels_to_10_error"] == 19
    assert summarise(curve, 10)["labels_to_5_error"] == 19.5
    assert summarise(curve[:1], 10)["area_under_curve"] == 0
    assert summarise(curve[:1], 10)["labels_to_5_error"] == 20


@pytest.mark.parametrize(
    ("errors", "labels"),
    [
        ([40, 20, 4, 2], 36.25),  # three eighths short of 40: 20 - 16 share = 10
        ([40, 20, 10, 2], 40),
        ([10, 20, 4, 2], 20),
        ([5, 20, 30, 40], 20),  # the first time counts, even if it was luck
        ([40, 9, 30, 9], 20 + 10 * 30 / 31),
        ([40, 30, 20, 10.1], 60),  # never: the labels at the end, and a round
        ([40, 30, 20, 10], 50),
    ],
)
def test_labels_to_an_error_are_read_off_the_curve(errors, labels):
    n_labels = np.array([20.0, 30.0, 40.0, 50.0])
    assert labels_to_error(n_labels, np.array(errors, float), 10, 10) == pytest.approx(labels)
