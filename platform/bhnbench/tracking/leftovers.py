"""Artifacts of runs that MLflow has never heard of, as when its database was removed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from bhnbench.errors import BhnbenchError
from bhnbench.tracking.addresses import reason, shown

RUN_ID = re.compile(r"[0-9a-f]{32}")


def leftover_artifacts(artifact_folder: Path, uri: str) -> list[Path]:
    """The folders of runs that MLflow does not know, not even as deleted.

    Args:
        artifact_folder: where MLflow keeps files: ``EXPERIMENT/RUN``.
        uri: of MLflow's own database, which is there. It is read only where there are artifacts.

    Raises:
        BhnbenchError: MLflow's database cannot be read.
    """
    folders = [
        path
        for path in sorted(artifact_folder.glob("*/*"))
        if RUN_ID.fullmatch(path.name) and path.is_dir() and not path.is_symlink()
    ]
    if not folders:
        return []
    try:
        return _unknown(folders, uri)
    except Exception as error:
        raise BhnbenchError(f"MLflow at {shown(uri)}: {reason(error, uri)}") from None


def _unknown(folders: Sequence[Path], uri: str) -> list[Path]:
    from mlflow.exceptions import MlflowException

    from bhnbench.tracking.client import close_client, open_client

    client = open_client(uri)
    unknown = []
    try:
        for folder in folders:
            try:
                client.get_run(folder.name)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                unknown.append(folder)
    finally:
        close_client(uri)
    return unknown
