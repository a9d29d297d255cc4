"""A Ray cluster to run on: what it has, and whether that is enough."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from bhnbench.engine import LOCAL, ray_address
from bhnbench.errors import ResourceError
from bhnbench.interrupts import interrupts_deferred
from bhnbench.sweep.execution import Resources

JOIN_SECONDS = 60.0
LOOK_SECONDS = 1.0  # between two looks at which nodes there are


class Cluster:
    """The nodes that are alive, looked at now and then."""

    def __init__(self, *, grows: bool) -> None:
        """Of the cluster that this process is connected to.

        Args:
            grows: whether nodes may join.
        """
        self.grows = grows
        self._nodes: Sequence[Mapping[str, float]] = []
        self._look_again = 0.0

    def slots(self, resources: Resources) -> int:
        """How many runs fit at a time."""
        return sum(_fits(asked_of(resources), node) for node in self._alive())

    def await_workers(self) -> None:
        """Where nodes may join and none has a processor, as after a fault: wait a while."""
        until = time.monotonic() + JOIN_SECONDS
        while self.grows and not self.largest("CPU") and time.monotonic() < until:
            time.sleep(LOOK_SECONDS)

    def fits(self, resources: Resources) -> bool:
        """Whether some node has so much."""
        return self.slots(resources) > 0

    def largest(self, kind: str) -> float:
        """The most that one node has of something."""
        return max((node.get(kind, 0.0) for node in self._alive()), default=0.0)

    def check(self, requests: Iterable[Resources]) -> None:
        """Raise unless every request fits some node.

        Raises:
            ResourceError: one never will.
        """
        for resources in requests:
            asked = asked_of(resources)
            for kind, amount in asked.items():
                if amount > self.largest(kind):
                    raise ResourceError(_refusal(kind, amount, self.largest(kind)))
            if not self.fits(resources):
                raise ResourceError(
                    f"resources: a run must fit a node of the cluster, but none has {resources} "
                    "at once; lower one of them"
                )

    def _alive(self) -> Sequence[Mapping[str, float]]:
        if time.monotonic() >= self._look_again:
            self._nodes = [node["Resources"] for node in _ray_nodes() if node["Alive"]]
            self._look_again = time.monotonic() + LOOK_SECONDS
        return self._nodes


class Seen(Cluster):
    """Nodes that somebody else has looked at: this process is connected to none."""

    def __init__(self, nodes: Sequence[Mapping[str, float]]) -> None:
        """Nodes, each by what it has."""
        super().__init__(grows=False)
        self._nodes = nodes

    def _alive(self) -> Sequence[Mapping[str, float]]:
        return self._nodes


def _ray_nodes() -> list[dict[str, Any]]:
    return list(ray.nodes())  # type: ignore[no-untyped-call]  # Ray's


def asked_of(resources: Resources) -> dict[str, float]:
    """A request in Ray's words."""
    asked = {
        "CPU": float(resources.cpu),
        "GPU": float(resources.gpu),
        "memory": float(resources.memory_bytes),
    }
    return {kind: amount for kind, amount in asked.items() if amount}


def _fits(asked: Mapping[str, float], node: Mapping[str, float]) -> int:
    return min(_times(kind, amount, node.get(kind, 0.0)) for kind, amount in asked.items())


def _times(kind: str, amount: float, has: float) -> int:
    """How often an amount fits; a share is of one GPU, and what is left of each is of no use."""
    if kind == "GPU" and amount < 1:
        return math.floor(has) * math.floor(1 / amount + 1e-9)  # 1 / 0.1 is a little less than 10
    return math.floor(has / amount + 1e-9)


def _refusal(kind: str, amount: float, most: float) -> str:
    name, scale = (kind.lower(), 1.0) if kind != "memory" else ("memory", 2.0**30)
    unit = " GiB" if kind == "memory" else ""
    return (
        f"resources.{name}: a run must fit a node of the cluster, but asks for "
        f"{amount / scale:g}{unit} and none has more than {most / scale:.4g}{unit}; "
        f"lower it with --set resources.{name}=N"
    )


@contextmanager
def open_cluster(requests: Iterable[Resources]) -> Iterator[Cluster]:
    """A local Ray cluster, or the one that RAY_ADDRESS names.

    Ray and Tune print to stdout whatever they are told, and stdout is for results: until the
    cluster closes, it goes nowhere.

    Raises:
        ResourceError: there is no such cluster, or it can never satisfy a request.
    """
    for name in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # failures are ours to tell
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        _connect(ray_address())
        try:
            cluster = Cluster(grows=ray_address() != LOCAL)
            cluster.await_workers()
            cluster.check(requests)
            yield cluster
        finally:
            ray.shutdown()


def n_own_cpus() -> int:
    """The processors that this process may use; Ray would count all of the machine's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _connect(address: str) -> None:
    try:
        with interrupts_deferred():
            ray.init(
                address,
                num_cpus=n_own_cpus() if address == LOCAL else None,
                include_dashboard=False if address == LOCAL else None,
                log_to_driver=False,
                logging_level=logging.CRITICAL,
                configure_logging=False,
            )
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ResourceError(f"the Ray cluster at {address} does not start: {reason}") from error
