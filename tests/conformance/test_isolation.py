"""The A, B, A law over the real plugins: what a worker did before does not show in a run."""

from __future__ import annotations

import itertools

import pytest

from bhnbench.plugins import installed
from bhnbench.runner import execute
from bhnbench.space import Value
from bhnbench.specs import RunSpec
from bhnbench.sweep.entries import bind
from bhnbench.testing.comparison import content_of_outcome

TASKS: dict[str, dict[str, Value]] = {
    "toy_regression": {"n_train": 64, "epochs": 3, "n_samples": 4},
    "active_learning": {"n_rounds": 2, "epochs": 3, "n_samples": 4, "n_hidden": 10},
}


METHODS = [name for name, p in installed("method").items() if p.package != "bhnbench-doubles"]
PAIRS = list(itertools.product(TASKS, METHODS))


def run_of(task: str, method: str) -> RunSpec:
    return RunSpec(
        bind("task", task, TASKS[task]),
        bind("method", method, {}),
        phase="evaluate",
        seed=1,
    )


def numbers_of(task: str, method: str) -> tuple[object, ...]:
    result = execute(run_of(task, method))
    assert result.outcome is not None, result.message
    return (content_of_outcome(result.outcome), list(result.points))


@pytest.fixture(scope="module")
def first_time() -> dict[tuple[str, str], tuple[object, ...]]:
    return {pair: numbers_of(*pair) for pair in PAIRS}


@pytest.mark.parametrize(("task", "method"), PAIRS[::-1])
def test_a_run_repeated_after_all_others_gives_the_same_numbers(task, method, first_time):
    assert numbers_of(task, method) == first_time[task, method]
