"""Ray: a cluster to run on, and what is left of a sweep as one Tune run on it."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import ray
from ray import tune
from ray.tune import TuneConfig, Tuner

from bhnbench.engine import LOCAL, ray_address
from bhnbench.engine.adapters import (
    CoordinatorScheduler,
    CoordinatorSearcher,
    LandResults,
)  # fmt: skip
from bhnbench.engine.coordinator import Coordinator, Work
from bhnbench.engine.trainable import RunTrainable, pack
from bhnbench.errors import ResourceError
from bhnbench.interrupts import interrupts_deferred
from bhnbench.sweep.execution import Resources


@contextmanager
def open_cluster(resources: Resources) -> Iterator[int]:
    """A local Ray cluster, or the one that RAY_ADDRESS names; yields how many runs fit at a time.

    Ray and Tune print to stdout whatever they are told, and stdout is for results: until the
    cluster closes, it goes nowhere.

    Raises:
        ResourceError: there is no such cluster, or it can never satisfy the request of a run.
    """
    for name in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # failures are ours to tell
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        address = ray_address()
        try:
            with interrupts_deferred():
                ray.init(
                    address,
                    include_dashboard=False if address == LOCAL else None,
                    log_to_driver=False,
                    logging_level=logging.CRITICAL,
                    configure_logging=False,
                )
        except (ConnectionError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ResourceError(
                f"the Ray cluster at {address} does not start: {reason}"
            ) from error
        try:
            yield count_slots(resources, ray.cluster_resources())  # type: ignore[no-untyped-call]
        finally:
            ray.shutdown()


def run_to_the_end(
    coordinator: Coordinator,
    resources: Resources,
    slots: int,
    checkpoint_folder: Path,
    scratch: Path,
) -> None:
    """Execute every run the coordinator hands out, ``slots`` at a time."""
    searcher = CoordinatorSearcher(coordinator, _packer(resources, checkpoint_folder))
    tuner = Tuner(
        tune.with_resources(RunTrainable, {"cpu": resources.cpu, "gpu": resources.gpu}),
        tune_config=TuneConfig(
            search_alg=searcher,
            scheduler=CoordinatorScheduler(coordinator, searcher),
            num_samples=-1,
            max_concurrent_trials=slots,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="sweep",
            storage_path=str(scratch),
            callbacks=[LandResults(coordinator, searcher)],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    )
    tuner.fit()


def _packer(resources: Resources, checkpoint_folder: Path) -> Callable[[Work], dict[str, str]]:
    def pack_work(work: Work) -> dict[str, str]:
        return pack(
            work.spec,
            work.early_termination,
            metric=work.metric,
            n_threads=resources.cpu,
            device="cuda" if resources.gpu else "cpu",
            checkpoint_folder=str(checkpoint_folder),
        )

    return pack_work


def count_slots(resources: Resources, total: dict[str, float]) -> int:
    """How many runs fit at a time.

    Raises:
        ResourceError: not even one.
    """
    asked = {"CPU": float(resources.cpu), "GPU": float(resources.gpu)}
    for kind, amount in asked.items():
        have = total.get(kind, 0.0)
        if amount > have:
            raise ResourceError(
                f"resources.{kind.lower()}: a run must fit the cluster, but asks for {amount:g} "
                f"and the cluster has {have:g}; lower it with --set resources.{kind.lower()}=N"
            )
    fits = [total[kind] / amount for kind, amount in asked.items() if amount]
    return math.floor(min(fits) + 1e-9)  # 1 / 0.1 is a little less than 10
