"""The crew in the shapes that Ray Tune asks for: a worker is one trial of Tune's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray.tune import Callback, PlacementGroupFactory, Stopper
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from bhnbench.engine.cluster import asked_of
from bhnbench.engine.crew import Crew
from bhnbench.engine.trainable import HANDLE, RESULT
from bhnbench.interrupts import listen_again
from bhnbench.runs import Failure, RunResult
from bhnbench.sweep.execution import Resources

if TYPE_CHECKING:
    from ray.tune.experiment import Trial

RESOURCES = "resources"  # where a worker's configuration says what it has
NODE_LOST = re.compile(  # in the words of Ray's errors
    r"node (was terminated|has died|is dead|died)|node_died|is unavailable: |temporarily unavail",
    re.IGNORECASE,
)
# Whose command lines may hold secrets: the other processes on the node.
OTHERS = re.compile(r"(Considered workers|Top \d+ memory users).*", re.DOTALL)


def bundle(config: dict[str, Any]) -> PlacementGroupFactory:
    """What Tune is to set aside for a worker."""
    return PlacementGroupFactory([asked_of(Resources(**config[RESOURCES]))])


class Hire(Searcher):
    """Tune asks it whether to start another worker."""

    def __init__(self, crew: Crew) -> None:
        super().__init__()
        self._crew = crew
        self._listens = False

    def suggest(self, trial_id: str) -> Any:  # noqa: ANN401 - Tune's own type
        """What the worker has; None: no further one now; FINISHED when nothing is left."""
        if not self._listens:
            listen_again()  # Tune has taken SIGUSR1 for itself when it began
            self._listens = True
        if self._crew.finished:
            return Searcher.FINISHED
        resources = self._crew.hire(trial_id)
        return None if resources is None else {RESOURCES: vars(resources)}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """The crew has heard it already."""

    def save(self, checkpoint_path: str) -> None:
        """The ledger remembers; Tune need not."""

    def restore(self, checkpoint_path: str) -> None:
        """Sweeps resume from the ledger."""


class Direct(FIFOScheduler):
    """Tune tells it what a worker brought, and asks whether the worker goes on."""

    def __init__(self, crew: Crew) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._crew = crew

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:  # noqa: ANN401
        """A run reached a rung or its end, or the worker has nothing to do."""
        with self._crew.remembering_errors():
            goes_on = self._crew.goes_on(trial.trial_id, result.get(HANDLE), result[RESULT])
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:  # noqa: ANN401
        """The worker is gone."""
        text = _error_text(trial)
        result = lost(text)
        killed = result.failure == "interrupted" and NODE_LOST.search(text) is None
        with self._crew.remembering_errors():
            self._crew.lost(trial.trial_id, result, killed=killed)


class Forget(Callback):
    """Takes results out of Tune's books, so that the driver stays small."""

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        result: dict[str, Any],
        **info: object,
    ) -> None:
        """After the scheduler has heard it."""
        result.pop(RESULT, None)
        result.pop(HANDLE, None)


class StopInTheEnd(Stopper):
    """Ends workers that still wait for room when nothing is left to do."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No worker is ended by what it brings."""
        return False

    def stop_all(self) -> bool:
        """Whether nothing is left."""
        return self._crew.finished


def lost(text: str) -> RunResult:
    """The result of a run whose worker died."""
    words = " ".join(OTHERS.sub("", text).split())
    memory = "OutOfMemory" in words or "out of memory" in words.lower()
    failure: Failure = "out_of_memory" if memory else "interrupted"
    return RunResult("failed", failure=failure, message=f"the worker died: {words}")


def _error_text(trial: Trial) -> str:
    """What Tune noted, on this host, of an error."""
    file = Path(trial.error_file) if trial.error_file else None
    return file.read_text() if file is not None and file.exists() else "for an unknown reason"
