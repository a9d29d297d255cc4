"""What can go wrong on a cluster, and how it is put right again."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from random import Random

from tests.integration.cluster.hosts import NamespaceNetwork
from tests.integration.cluster.lab import Lab
from tests.integration.faults.driver import DriverLoop

SYSTEM = ("Agent", "IDLE")  # Ray's own processes, and those that execute nothing


@dataclass(frozen=True)
class Scene:
    """Where faults happen."""

    lab: Lab
    driver: DriverLoop
    random: Random

    def worker(self) -> str:
        """Any worker's host."""
        return self.random.choice(self.lab.cluster.workers)

    def wait(self, longest: float) -> str:
        """Leave things as they are for a while."""
        seconds = self.random.uniform(0, longest)
        time.sleep(seconds)
        return f"{seconds:.1f} s"


def kill_driver(scene: Scene) -> str:
    """The driver dies without a last word."""
    return "hit" if scene.driver.kill() else "none was there"


def kill_worker(scene: Scene) -> str:
    """A process that executes runs dies."""
    hosts = [scene.lab.cluster.network.hosts[name] for name in scene.lab.cluster.workers]
    commands = [item for host in hosts for item in host.commands().items()]
    actors = [p for p, c in commands if c.startswith("ray::") and not any(s in c for s in SYSTEM)]
    if not actors:
        return "none was there"
    with suppress(ProcessLookupError):
        os.kill(scene.random.choice(actors), signal.SIGKILL)
    return "hit"


def kill_node(scene: Scene) -> str:
    """A worker's host loses power, and comes up again."""
    name = scene.worker()
    scene.lab.cluster.network.end(name)
    off = scene.wait(5)
    scene.lab.cluster.start_worker(name)
    return f"{name} off for {off}"


def cut_network(scene: Scene) -> str:
    """A worker's host is unreachable, so long that Ray may give it up."""
    network = scene.lab.cluster.network
    assert isinstance(network, NamespaceNetwork)
    name = scene.worker()
    network.cut(name)
    cut = scene.wait(20)
    network.heal(name)
    return f"{name} cut off for {cut}"


def restart_database(scene: Scene) -> str:
    """PostgreSQL goes down in the middle of whatever it does, and comes up again."""
    scene.lab.postgres.stop()
    down = scene.wait(5)
    scene.lab.postgres.start()
    return f"down for {down}"


def stop_mlflow(scene: Scene) -> str:
    """MLflow's server loses power, and comes up again."""
    scene.lab.mlflow.stop()
    down = scene.wait(5)
    scene.lab.mlflow.start()
    return f"down for {down} and its start"


def fill_disk(scene: Scene) -> str:
    """The disk with the driver's home has no room."""
    head = scene.lab.cluster.network.hosts["head"]
    filler = scene.lab.home / "filler"
    head.run(["sh", "-c", f"cat /dev/zero > {filler}"])
    full = scene.wait(8)
    head.run(["rm", filler])
    return f"full for {full}"


KINDS: dict[str, Callable[[Scene], str]] = {
    "driver": kill_driver,
    "worker": kill_worker,
    "node": kill_node,
    "network": cut_network,
    "database": restart_database,
    "mlflow": stop_mlflow,
    "disk": fill_disk,
}
NEED_NAMESPACES = {"network", "disk"}
