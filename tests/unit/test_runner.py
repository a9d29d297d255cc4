"""One run in this process: what it warns of is kept with it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from bhnbench import checkpoints
from bhnbench.contract import Prunable
from bhnbench.devices import on_device
from bhnbench.runner import execute
from bhnbench.runs import RunResult
from bhnbench.specs import RunSpec
from bhnbench.sweep.entries import bind
from bhnbench.testing.problems import make_problem
from bhnbench.warning_log import MAX_LENGTH, MAX_WARNINGS
from bhnbench_methods.maximum_likelihood import MaximumLikelihood
from bhnbench_methods.sparse_variational_dropout import SparseVariationalDropout


def run(task: str = "guess", *, seed: int = 1, path: Path | None = None, **x: Any) -> RunResult:
    settings = {"breaks": str(x.pop("breaks"))} if "breaks" in x else {}
    spec = RunSpec(bind("task", task, settings), bind("method", "suspect", x), "evaluate", seed)
    return execute(spec, checkpoint_path=path)


def test_posterior_warnings_are_kept_once_each_in_order_and_on_one_line() -> None:
    result = run(n_warnings=3)
    assert result.state == "done"
    assert [text[:9] for text in result.warnings] == [f"samples {i}" for i in range(3)]
    assert result.warnings[0].endswith(" are equal; word word word")
    assert run(n_warnings=0).warnings == ()


def test_many_and_long_warnings_are_cut() -> None:
    result = run(n_warnings=1000, n_words=1000)
    assert len(result.warnings) == MAX_WARNINGS
    assert {len(text) for text in result.warnings} == {MAX_LENGTH}
    assert result.warnings[0].endswith("...")


@pytest.mark.parametrize("action", ["ignore", "error", "once"])
def test_no_filter_changes_what_is_kept(action: Any) -> None:
    expected = run(n_warnings=2).warnings
    assert len(expected) == 2
    with warnings.catch_warnings():
        warnings.simplefilter(action)
        before = list(warnings.filters), warnings.showwarning
        again = [run(n_warnings=2) for _ in range(2)]
        assert (list(warnings.filters), warnings.showwarning) == before
    assert [(result.state, result.warnings) for result in again] == [("done", expected)] * 2


def test_not_even_a_task_silences_them() -> None:
    result = run("rounds")
    assert len(result.warnings) == 3  # one a fit


def test_other_warnings_go_their_way() -> None:
    with pytest.warns(UserWarning, match="something else") as heard:
        result = run(other=True)
    assert len(heard) == 1
    assert len(result.warnings) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        failed = run(other=True)
    assert failed.message.startswith("UserWarning: something else")
    assert failed.warnings == result.warnings


def test_a_run_that_goes_on_knows_what_it_warned_of_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "CHECKPOINT_SECONDS", 0.0)
    path, breaks = tmp_path / "checkpoints" / "run.pt", tmp_path / "broken"
    broken = run("rounds", path=path, breaks=breaks)
    assert (broken.failure, len(broken.warnings)) == ("error", 2)
    (path.parent / f"{path.name}.torn").touch()  # a worker was killed while it wrote
    done = run("rounds", path=path, breaks=breaks)
    assert done.state == "done"
    assert len(done.warnings) == 3
    assert done.warnings[:2] == broken.warnings
    assert list(path.parent.iterdir()) == []


def test_what_a_predictive_can_do_it_can_do_on_a_device() -> None:
    problem = make_problem("classification", epochs=1)
    for method, can in ((SparseVariationalDropout(), True), (MaximumLikelihood(), False)):
        rng = torch.Generator().manual_seed(0)
        predictive = method.fit(problem, rng=rng, report=lambda step, metrics: None)
        wrapped = on_device(predictive, "cpu")
        assert isinstance(wrapped, Prunable) == can
        if can:
            assert wrapped.sparsity() == predictive.sparsity()
            assert wrapped.pruned()(problem.train.inputs).shape == (48, 3)


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
def test_a_run_that_asks_for_a_gpu_where_there_is_none_says_so() -> None:
    spec = RunSpec(bind("task", "guess", {}), bind("method", "constant", {}), "evaluate", 1)
    result = execute(spec, device="cuda")
    assert (result.state, result.failure) == ("failed", "error")
    assert result.message.startswith("a run that asks for a GPU needs CUDA, but torch ")
