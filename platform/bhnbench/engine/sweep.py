"""Runs what is left of a sweep as one Ray Tune run."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

# Before ray is imported: it reads some of these once.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # relative paths in plugins stay right
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C is ours to handle
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", str(10**9))  # the ledger remembers

import ray
from ray import tune
from ray.tune import TuneConfig, Tuner

from bhnbench.engine.adapters import (
    CoordinatorScheduler,
    CoordinatorSearcher,
    LandResults,
)  # fmt: skip
from bhnbench.engine.coordinator import Coordinator, Work
from bhnbench.engine.trainable import RunTrainable, pack
from bhnbench.errors import ResourceError
from bhnbench.sweep.document import Resources


def run_to_the_end(
    coordinator: Coordinator, resources: Resources, checkpoint_folder: Path
) -> None:
    """Execute every run the coordinator hands out.

    Raises:
        ResourceError: the cluster can never satisfy the request of a run.
    """
    # Ray and Tune print to stdout whatever they are told; stdout is for results.
    with (
        Path(os.devnull).open("w") as nowhere,
        redirect_stdout(nowhere),
        _cluster() as total,
        tempfile.TemporaryDirectory(prefix="bhnbench-") as scratch,
    ):
        slots = count_slots(resources, total)
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
                storage_path=scratch,
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
    return int(min(total[kind] // amount for kind, amount in asked.items() if amount))


@contextmanager
def _cluster() -> Iterator[dict[str, float]]:
    """A local Ray cluster, or the one that RAY_ADDRESS names; yields its resources."""
    for name in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # failures are ours to tell
    ray.init(
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.CRITICAL,
        configure_logging=False,
    )
    try:
        yield ray.cluster_resources()  # type: ignore[no-untyped-call]
    finally:
        ray.shutdown()
