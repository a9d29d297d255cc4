"""A Ray cluster of several hosts that asks for a token."""

from __future__ import annotations

import secrets
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.integration.cluster.hosts import Host, Network, wait_until

RAY = Path(sys.executable).with_name("ray")
AGAIN = 'while :; do "$@"; sleep 1; done'  # as systemd does with Restart=always
STARTED = "Ray runtime started"
# A host that is cut off is noticed after 10 s, not 60 s, and one without head ends itself soon.
IMPATIENCE = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "4",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "20",
}


def _free_port() -> int:
    with socket.socket() as probe:  # without namespaces, Ray listens on every address
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


@dataclass
class RayCluster:
    """A head without CPUs, where the driver is, and workers; each on its own host."""

    network: Network
    folder: Path  # that all hosts see
    variables: Mapping[str, str] = field(default_factory=dict)  # of every host
    n_cpus: int = 1  # of a worker
    dashboard: bool = False
    port: int = field(default_factory=_free_port)

    def __post_init__(self) -> None:
        token = self.folder / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token"}
        given = {"RAY_AUTH_TOKEN_PATH": str(token)}
        self.variables = {**quiet, **given, **IMPATIENCE, **self.variables}
        self._n_starts: dict[str, int] = {}

    @property
    def address(self) -> str:
        """Of the cluster, as Ray takes it."""
        return f"{self.network.hosts['head'].address}:{self.port}"

    @property
    def workers(self) -> list[str]:
        """The names of the worker hosts that are switched on."""
        return [name for name in self.network.hosts if name.startswith("worker")]

    def start(self, n_workers: int = 2) -> None:
        """Switch everything on; returns when all workers have joined."""
        self.start_head()
        names = [f"worker{number}" for number in range(1, n_workers + 1)]
        for name in names:
            self.start_worker(name)
        for name in names:
            self.wait_for(name)

    def start_head(self) -> None:
        """Switch the head on, and wait for it."""
        host = self.network.add("head", 1, **self.variables)
        options = ["--head", f"--port={self.port}", "--num-cpus=0"]
        options += [f"--include-dashboard={str(self.dashboard).lower()}"]
        options += [f"--dashboard-host={host.address}"] if self.dashboard else []
        self._start_ray(host, options)
        self.wait_for("head")

    def start_worker(self, name: str) -> None:
        """Switch a worker on, which joins whenever it can; see ``wait_for``."""
        number = int(name.removeprefix("worker"))
        host = self.network.add(name, 10 + number, **self.variables)
        self._start_ray(host, [f"--address={self.address}", f"--num-cpus={self.n_cpus}"])

    def _start_ray(self, host: Host, options: Sequence[str]) -> None:
        self._n_starts[host.name] = n = self._n_starts.get(host.name, 0) + 1
        common = ["--block", f"--node-ip-address={host.address}", "--disable-usage-stats"]
        common += [f"--temp-dir={self.folder}/own/{host.name}.{n}"]
        common += [f"--object-store-memory={10**8}"]
        command = [RAY, "start", *options, *common]
        again = ["sh", "-c", AGAIN, "sh"] if host.name != "head" else []
        host.start([*again, *command], self._log(host.name))

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.{self._n_starts[name]}.log"

    def n_joins(self, name: str) -> int:
        """How often a host has joined since it was switched on."""
        return self._log(name).read_text().count(STARTED)

    def wait_for(self, name: str, seconds: float = 300) -> None:
        """Until a host has joined since it was switched on."""
        wait_until(lambda: self.n_joins(name), seconds, f"{name} to join")
