"""What is left of a sweep, as one Tune run on a cluster."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ray import tune
from ray.tune import TuneConfig, Tuner

from bhnbench.engine.actor_errors import teach
from bhnbench.engine.adapters import Direct, Forget, Hire, StopInTheEnd, bundle
from bhnbench.engine.cluster import Cluster
from bhnbench.engine.coordinator import Coordinator
from bhnbench.engine.crew import Crew
from bhnbench.engine.trainable import RunTrainable, pack
from bhnbench.engine.work import Work
from bhnbench.interrupts import preempt


def run_to_the_end(
    coordinator: Coordinator, cluster: Cluster, checkpoint_folder: str, scratch: Path
) -> None:
    """Execute every run that the coordinator hands out, as many at a time as there is room.

    Raises:
        BhnbenchError: the ledger is away for too long, or no worker starts.
    """
    teach()
    crew = Crew(coordinator, cluster, _packer(checkpoint_folder))
    tuner = Tuner(
        tune.with_resources(RunTrainable, bundle),
        tune_config=TuneConfig(
            search_alg=Hire(crew),
            scheduler=Direct(crew),
            num_samples=-1,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="sweep",
            storage_path=str(scratch),
            callbacks=[Forget()],
            stop=StopInTheEnd(crew),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    )
    try:
        tuner.fit()
    except Exception:
        if crew.error is not None:
            raise crew.error from None
        raise
    if not crew.finished:  # Tune heard SIGUSR1 before we did
        preempt()


def _packer(checkpoint_folder: str) -> Callable[[Work], str]:
    def pack_work(work: Work) -> str:
        return pack(
            work.spec,
            work.early_termination,
            metric=work.metric,
            n_threads=work.resources.cpu,  # also where it asks for more: numbers depend on it
            device="cuda" if work.resources.gpu else "cpu",
            checkpoint_folder=checkpoint_folder,
        )

    return pack_work
