"""Every test starts from the same global state and leaves it as it was."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

DATA = os.environ.get("BHNBENCH_DATA")


@pytest.fixture(autouse=True)
def global_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Own home, own cache, one thread; global random state and dtype restored."""
    import torch

    monkeypatch.setenv("BHNBENCH_HOME", str(tmp_path / "home"))
    for name in ("BHNBENCH_LEDGER", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    state, dtype, threads = (
        torch.get_rng_state(),
        torch.get_default_dtype(),
        torch.get_num_threads(),
    )
    torch.set_num_threads(1)
    yield
    torch.set_rng_state(state)
    torch.set_default_dtype(dtype)
    torch.set_num_threads(threads)


@pytest.fixture
def data_folder() -> Path:
    """The folder of real data sets, or a skip that says how to get them."""
    if not DATA:
        pytest.skip("needs real data sets: set BHNBENCH_DATA to a folder that holds mnist/")
    return Path(DATA)
