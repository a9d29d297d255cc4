"""The ready sweeps can be run as they are, and say how."""

from __future__ import annotations

from pathlib import Path

import pytest

from bhnbench.plugins import installed
from bhnbench.sweep.document import read_sweep

ROOT = Path(__file__).parents[2]
SWEEPS = sorted((ROOT / "sweeps").glob("*.yaml"))


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_a_ready_sweep_is_valid_and_names_its_command(path: Path) -> None:
    sweep = read_sweep(path)
    assert sweep.name == path.stem.replace("_", "-")
    assert f"#     bhnbench sweep sweeps/{path.name}\n" in path.read_text()
    methods = {study.labels[1] for study in sweep.studies}
    assert len(methods) >= 4, methods


def test_every_task_has_a_ready_sweep() -> None:
    tasks = {name for name, p in installed("task").items() if p.package != "bhnbench-doubles"}
    swept = {study.task.name for path in SWEEPS for study in read_sweep(path).studies}
    assert not tasks - swept
