"""A ledger and an MLflow database to work with."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bhnbench.ledger.ledger import Ledger

if TYPE_CHECKING:
    from bhnbench_doubles.tracked_sweeps import Place


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new MLflow database, which takes seconds to make."""
    from bhnbench.tracking.client import close_client, open_client

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    open_client(f"sqlite:///{path}")
    close_client(f"sqlite:///{path}")
    return path


@pytest.fixture
def place(tmp_path: Path, empty_store: Path) -> Iterator[Place]:
    """A ledger and an MLflow database, both without a sweep."""
    from bhnbench_doubles import tracked_sweeps

    shutil.copy(empty_store, tmp_path / "mlflow.db")
    with Ledger(f"sqlite:///{tmp_path / 'ledger.db'}", create=True) as ledger:
        yield tracked_sweeps.Place(tmp_path, ledger, tmp_path / "mlflow.db")
