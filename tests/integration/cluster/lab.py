"""All that a laboratory has: a Ray cluster, PostgreSQL for the ledger, an MLflow server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.integration.cluster.hosts import open_network
from tests.integration.cluster.ray_cluster import RayCluster
from tests.integration.cluster.services import MLflowServer, Postgres

BHNBENCH = [sys.executable, "-m", "bhnbench.cli"]


@dataclass(frozen=True)
class Lab:
    """The driver runs on the cluster's head; runs on its workers; both servers are elsewhere."""

    folder: Path  # that all hosts see
    cluster: RayCluster
    postgres: Postgres
    mlflow: MLflowServer

    @property
    def home(self) -> Path:
        """The driver's, on the head's own disk: no other host sees it."""
        return self.cluster.network.own / "home"

    @property
    def variables(self) -> dict[str, str]:
        """What tells a driver where everything is."""
        return {
            "RAY_ADDRESS": self.cluster.address,
            "BHNBENCH_LEDGER": self.postgres.url("ledger"),
            "MLFLOW_TRACKING_URI": self.mlflow.url,
            "BHNBENCH_HOME": str(self.home),
        }

    def bhnbench(
        self, *arguments: object, timeout: float = 600
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the head to its end."""
        command = [*BHNBENCH, *map(str, arguments)]
        head = self.cluster.network.hosts["head"]
        return head.run(command, timeout=timeout, **self.variables)

    def start_bhnbench(self, *arguments: object, log: Path) -> subprocess.Popen[bytes]:
        """Start a command on the head."""
        command = [*BHNBENCH, *map(str, arguments)]
        head = self.cluster.network.hosts["head"]
        return head.start(command, log, **self.variables)


@contextmanager
def open_lab(
    folder: Path,
    variables: Mapping[str, str] | None = None,
    *,
    n_workers: int = 2,
    n_cpus: int = 1,
) -> Iterator[Lab]:
    """A laboratory with everything switched on, and off afterwards.

    Args:
        folder: a ``shared_folder()``.
        variables: of the environment of every host of the cluster.
        n_workers: hosts beside the head.
        n_cpus: of each.

    Raises:
        FileNotFoundError: PostgreSQL is not installed.
    """
    with open_network(folder) as network:
        postgres = Postgres(network, folder / "postgres")
        postgres.create("ledger")
        mlflow = MLflowServer(network, folder / "mlflow")
        cluster = RayCluster(network, folder, variables or {}, n_cpus)
        cluster.start(n_workers)
        yield Lab(folder, cluster, postgres, mlflow)
