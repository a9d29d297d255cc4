"""A real, if tiny, run of every task: trained by a method, scored on test data, drawn."""

from __future__ import annotations

import io
import json
import math

import pytest
from bhnbench_doubles.variants import VARIANTS
from click.testing import CliRunner

from bhnbench.cli.main import main
from bhnbench.plugins import installed, load_task
from bhnbench.runner import execute
from bhnbench.space import fields_of
from bhnbench.specs import RunSpec
from bhnbench.sweep.entries import bind

pytestmark = pytest.mark.slow

TASKS = [name for name, p in installed("task").items() if p.package != "bhnbench-doubles"]
METHODS = {"identity": "sgld", "compression": "sparse_variational_dropout"}


def tiny(task: str) -> dict[str, object]:
    settings = VARIANTS[task][0]
    return settings | ({"epochs": 2} if "epochs" in fields_of(load_task(task)) else {})


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.filterwarnings("ignore::bhnbench.errors.PosteriorWarning")
def test_a_tiny_run_has_finite_scores_and_figures(task: str) -> None:
    method = bind("method", METHODS.get(task, "maximum_likelihood"), {})
    result = execute(RunSpec(bind("task", task, tiny(task)), method, "evaluate", 1))
    assert result.outcome is not None, result.message
    assert all(math.isfinite(score) for score in result.outcome.scores.values())
    for draw in load_task(task).figures.values():
        draw({"a": [result.outcome]}).savefig(io.BytesIO())


def test_the_command_does_the_same() -> None:
    settings = [f"--set=task.{k}={v}" for k, v in tiny("rotated_digit").items()]
    arguments = ["run", "rotated_digit", "maximum_likelihood", *settings, "--json"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "nll" in json.loads(result.stdout)["scores"]
