"""Progress that is kept: nothing that a file brings is run, and what does not fit is not used."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import bhnbench_doubles.tasks
import numpy as np
import pytest
import torch
from bhnbench_doubles.methods import Constant

from bhnbench import checkpoints
from bhnbench.checkpoints import RunCheckpoint, from_bytes, to_bytes
from bhnbench.contract import Split
from bhnbench.errors import ContractError
from bhnbench.home import Home
from bhnbench.runner import execute
from bhnbench.specs import RunSpec
from bhnbench.storage import LocalFile
from bhnbench.sweep.entries import bind
from bhnbench.testing.fitting import draw, fit
from bhnbench.testing.problems import make_problem
from bhnbench_methods.mc_dropout import MCDropout


class Calls:
    """A pickle of it calls a function when it is loaded."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


class Rounds:
    """A run of three fits that keeps its progress after each and breaks after the second, once."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.breaks = folder / "broken"
        self.path = folder / "run.pt"
        self.n_fits = 0
        fit = Constant.fit

        def counted(method: Constant, *given: Any, **named: Any) -> Any:
            self.n_fits += 1
            return fit(method, *given, **named)

        monkeypatch.setattr(Constant, "fit", counted)
        monkeypatch.setattr(checkpoints, "CHECKPOINT_SECONDS", 0.0)

    def spec(self, seed: int = 1) -> RunSpec:
        task = bind("task", "rounds", {"breaks": str(self.breaks)})
        return RunSpec(task, bind("method", "constant", {}), "evaluate", seed)

    def go(self, seed: int = 1) -> int:
        """Run; returns how many fits it made now."""
        before = self.n_fits
        self.result = execute(self.spec(seed), checkpoint_path=self.path)
        return self.n_fits - before


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rounds:
    """Two fits are done, and kept."""
    run = Rounds(tmp_path, monkeypatch)
    assert run.go() == 2
    assert run.result.failure == "error"
    assert run.path.exists()
    return run


STATES = {
    "numbers": [1, -1, 2**40, -(2**70), 1.5, float("inf"), True, None],
    "text": ["", "ä\0\n", 1000 * "x", b"bytes"],
    "containers": {"a": (1, [2, {3}]), 4: {"b": ()}},
    "tensors": [torch.arange(3), torch.randn(2, 3, dtype=torch.float64), torch.tensor(True)],
    "arrays": [np.arange(3), np.random.default_rng(0).normal(size=(2, 2)), np.array(["a", "bc"])],
    "numpy's numbers": [np.float64(1.5), np.int32(3), np.bool_(True)],
    "the contract's": [Split(torch.zeros(2), torch.ones(2))],
}


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_what_is_plain_comes_back(state: Any) -> None:
    back = from_bytes(to_bytes(state))
    assert to_bytes(back) == to_bytes(state)
    assert type(back) is type(state)


def test_what_shares_memory_still_does() -> None:
    tensor = torch.arange(4)
    first, second = from_bytes(to_bytes([tensor, tensor[1:]]))
    first += 1
    assert second.tolist() == [2, 3, 4]


def test_a_process_that_imported_nothing_reads_a_predictive(tmp_path: Path) -> None:
    problem = make_problem("classification", epochs=2)
    predictive = fit(MCDropout(), problem)
    (tmp_path / "kept.pt").write_bytes(to_bytes(predictive))
    torch.save(problem.validation.inputs, tmp_path / "inputs.pt")
    program = """
import sys
from pathlib import Path
import torch
from bhnbench.checkpoints import from_bytes
assert "bhnbench_methods" not in sys.modules
predictive = from_bytes(Path("kept.pt").read_bytes())
rng = torch.Generator().manual_seed(5)
torch.save(predictive.sample(torch.load("inputs.pt"), 7, rng=rng), "outputs.pt")
"""
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    rng = torch.Generator().manual_seed(5)
    expected = predictive.sample(problem.validation.inputs, 7, rng=rng)
    assert torch.equal(torch.load(tmp_path / "outputs.pt"), expected)
    assert draw(predictive, problem.validation.inputs).isfinite().all()


def test_a_run_goes_on_from_what_was_kept_and_leaves_nothing(broken: Rounds) -> None:
    assert broken.go() == 1
    assert broken.result.state == "done"
    assert not broken.path.exists()


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("mc_dropout", {}),
        ("deep_ensemble", {"n_members": 2}),
        ("sgld", {}),
        ("bayesian_hypernet", {}),
    ],
)
def test_a_run_that_goes_on_gives_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, settings: dict[str, Any]
) -> None:
    """Each fit starts from the predictive of the last, which comes out of the file."""
    monkeypatch.setattr(checkpoints, "CHECKPOINT_SECONDS", 0.0)
    rounds = {"n_rounds": 2, "epochs": 2, "n_samples": 5, "n_candidates": 20, "restart": "warm"}
    task = bind("task", "active_learning", rounds)
    spec = RunSpec(task, bind("method", method, settings), "search", 0)

    def lose(points: Any, so_far: Any) -> None:
        if len(points) == 3:  # in the last round, when two are kept
            raise ConnectionError

    whole = execute(spec, checkpoint_path=tmp_path / "whole.pt")
    lost = execute(spec, checkpoint_path=tmp_path / "lost.pt", listen=lose)
    assert (whole.state, lost.failure) == ("done", "error")
    heard: list[int] = []
    rest = execute(
        spec,
        checkpoint_path=tmp_path / "lost.pt",
        listen=lambda points, so_far: heard.append(points[-1][0]),
    )
    assert heard == [3]  # the other rounds are not done again
    assert rest.outcome is not None
    assert whole.outcome is not None
    assert rest.outcome.scores == whole.outcome.scores
    assert rest.points == whole.points
    assert to_bytes(rest.outcome.tables) == to_bytes(whole.outcome.tables)


def test_progress_of_another_run_is_not_used(broken: Rounds) -> None:
    assert broken.go(seed=2) == 3
    assert broken.result.state == "done"


@pytest.mark.parametrize("n_bytes", [0, 1, 100, -1])
def test_torn_progress_is_not_used(broken: Rounds, n_bytes: int) -> None:
    broken.path.write_bytes(broken.path.read_bytes()[:n_bytes])
    assert broken.go() == 3
    assert broken.result.state == "done"


FORBIDDEN: list[tuple[Any, list[Any]]] = [
    (os.system, ["touch marker"]),
    (os.mkdir, ["marker"]),
    (eval, ["__import__('os').mkdir('marker')"]),
    (subprocess.Popen, [["touch", "marker"]]),
    (torch.save, [[1], "marker"]),  # torch's own, but it writes
    (torch.hub.download_url_to_file, ["file:///etc/hostname", "marker"]),
    (bhnbench_doubles.tasks.make_marker, []),  # of a plugin's package, but a function
    (Home, [Path("marker")]),  # of the platform, but not of the contract
]


@pytest.mark.parametrize(("function", "arguments"), FORBIDDEN)
@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_nothing_that_a_file_brings_is_run(
    broken: Rounds, monkeypatch: pytest.MonkeyPatch, form: str, function: Any, arguments: list[Any]
) -> None:
    folder = broken.path.parent / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    content = from_bytes(broken.path.read_bytes())
    planted = {**content, "state": Calls(function, *arguments)}
    if form == "torch":
        torch.save(planted, broken.path)
    else:
        broken.path.write_bytes(pickle.dumps(planted))
    assert broken.go() == 3  # afresh
    assert broken.result.state == "done"
    assert list(folder.iterdir()) == []


def test_the_plant_would_grow_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above shows nothing unless its files are dangerous."""
    monkeypatch.chdir(tmp_path)
    for function, arguments in FORBIDDEN[:3]:
        torch.save(Calls(function, *arguments), "planted.pt")
        torch.load("planted.pt", weights_only=False)
        marker = tmp_path / "marker"
        assert marker.exists()
        marker.rmdir() if marker.is_dir() else marker.unlink()


def test_a_name_that_a_module_of_a_plugin_imports_is_none_of_its_own() -> None:
    forged = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(to_bytes(Split([], [])))) as kept,  # type: ignore[arg-type]
        zipfile.ZipFile(forged, "w") as archive,
    ):
        for name in kept.namelist():
            content = kept.read(name)
            archive.writestr(name, content.replace(b"contract\nSplit", b"contract\nABC"))
    with pytest.raises(pickle.UnpicklingError, match=r"GLOBAL bhnbench\.contract\.ABC was not"):
        from_bytes(forged.getvalue())


def test_what_would_not_be_read_is_not_kept_and_the_run_goes_on(
    broken: Rounds, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ContractError, match=r"plain containers .* holds posix\.system"):
        to_bytes([os.system])
    broken.path.unlink()
    monkeypatch.setattr(RunCheckpoint, "load", lambda self: self.save([os.system]))
    monkeypatch.setattr(LocalFile, "write", lambda self, content: Path("no/no").mkdir())
    assert broken.go() == 3
    assert broken.result.state == "done"
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 4
    assert "is not kept: a checkpoint must hold tensors" in told[0]
    assert all("is not kept: [Errno 2]" in text for text in told[1:])
