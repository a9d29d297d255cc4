"""The nearest known name."""

from __future__ import annotations

import pytest

from bhnbench.errors import did_you_mean

KNOWN = ("learning_rate", "batch_size", "weight_decay", "n_members", "rate", "mc_dropout", "MNIST")


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("learning_rat", "learning_rate"),
        ("lr", "learning_rate"),
        ("wd", "weight_decay"),
        ("MC dropout", "mc_dropout"),
        ("mc-Dropout", "mc_dropout"),
        ("mnist", "MNIST"),
        ("bat", "batch_size"),
        ("members", "n_members"),
    ],
)
def test_a_misspelt_a_short_and_a_spaced_name_have_a_nearest_one(name, near):
    assert did_you_mean(name, KNOWN) == f"did you mean {near!r}?"


def test_equally_near_names_are_all_named():
    hint = did_you_mean("lr", ["learning_rate", "layer_rates", "lr_decay"])
    assert hint == "did you mean 'layer_rates' or 'learning_rate'?"


@pytest.mark.parametrize("name", ["", "r", "zzz", "_"])
def test_a_name_that_resembles_none_lists_all(name):
    assert did_you_mean(name, ["rate", "learning_rate"]) == "known: learning_rate, rate"


def test_nothing_known():
    assert did_you_mean("x", []) == "none is known"
