"""All checks, in the order in which their findings are best read."""

from __future__ import annotations

from collections.abc import Iterator

from bhnbench.doctor import home as home_group
from bhnbench.doctor import ledger, machine, plugins
from bhnbench.doctor.sweep_file import SweepFile
from bhnbench.engine import diagnosis as ray
from bhnbench.findings import Check
from bhnbench.home import Home
from bhnbench.tracking import diagnosis as mlflow


def all_checks(file: SweepFile, home: Home) -> Iterator[Check]:
    """From what is nearest to what is farthest away."""
    yield from machine.checks()
    yield from plugins.checks()
    yield from file.checks()
    yield from home_group.checks(home)
    yield from ledger.checks(home)
    yield from mlflow.checks(home)
    urls = {"$BHNBENCH_LEDGER": home.ledger, "$MLFLOW_TRACKING_URI": home.tracking_uri}
    yield from ray.checks(file.requests, urls)
