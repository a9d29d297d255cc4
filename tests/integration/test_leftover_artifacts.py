"""Artifacts that a real MLflow database does not know."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bhnbench.errors import BhnbenchError
from bhnbench.tracking.leftovers import leftover_artifacts

pytestmark = pytest.mark.slow


def test_only_artifacts_of_runs_that_mlflow_never_had_are_left_over(
    tmp_path: Path, empty_store: Path
) -> None:
    from bhnbench.tracking.client import close_client, open_client

    shutil.copy(empty_store, tmp_path / "mlflow.db")
    uri, artifacts = f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "artifacts"
    client = open_client(uri)
    place = (artifacts / "demo").as_uri()
    experiment = client.create_experiment("demo", artifact_location=place)
    kept, deleted = (client.create_run(experiment).info.run_id for _ in range(2))
    for run in (kept, deleted):
        client.log_text(run, "a figure", "figures/curve.txt")
    client.delete_run(deleted)  # can be restored
    close_client(uri)
    stranger = artifacts / "demo" / ("0" * 32)
    shutil.copytree(artifacts / "demo" / kept, stranger)
    (artifacts / "demo" / "notes").mkdir()
    assert (artifacts / "demo" / deleted).is_dir()
    assert leftover_artifacts(artifacts, uri) == [stranger]
    (tmp_path / "mlflow.db").write_text("no database")
    with pytest.raises(BhnbenchError, match=r"MLflow at sqlite:.*: file is not a database"):
        leftover_artifacts(artifacts, uri)
