"""`bhnbench sync`: make MLflow show what the ledger knows. Imports mlflow only when called."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bhnbench.errors import BhnbenchError
from bhnbench.ledger.ledger import Ledger
from bhnbench.ledger.records import SweepRecord
from bhnbench.tracking.addresses import reason, shown
from bhnbench.tracking.content import SyncReport

if TYPE_CHECKING:
    from bhnbench.tracking.figures import DrawFigures


def sync(
    ledger: Ledger,
    sweep: SweepRecord,
    uri: str,
    artifact_folder: Path,
    draw: DrawFigures | None = None,
) -> SyncReport:
    """Compare MLflow with the ledger, send what is missing and repair what differs.

    Args:
        ledger: the truth.
        sweep: whose experiment.
        uri: MLflow's database or server.
        artifact_folder: where figures go if MLflow has no server.
        draw: draws the sweep's figures.

    Raises:
        BhnbenchError: MLflow cannot be reached or written; what was sent stays.
    """
    try:
        from bhnbench.tracking.projection import Projection

        projection = Projection(ledger, sweep, uri, artifact_folder, draw)
        try:
            return projection.reconcile()
        finally:
            projection.close()
    except BhnbenchError:
        raise
    except Exception as error:
        raise BhnbenchError(f"MLflow at {shown(uri)}: {reason(error, uri)}") from None
