"""The coordinator in the shapes that Ray Tune asks for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray.tune import Callback
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from bhnbench.engine.coordinator import Coordinator, Work
from bhnbench.engine.trainable import RESULT
from bhnbench.runs import Failure, RunResult

if TYPE_CHECKING:
    from collections.abc import Callable

    from ray.tune.experiment import Trial


class CoordinatorSearcher(Searcher):
    """Tune asks it for work."""

    def __init__(self, coordinator: Coordinator, pack: Callable[[Work], dict[str, str]]) -> None:
        super().__init__()
        self._coordinator = coordinator
        self._pack = pack
        self.work: dict[str, Work] = {}  # Tune trial id -> what it executes

    def suggest(self, trial_id: str) -> Any:  # noqa: ANN401 - Tune's own type
        """The next run; None to wait; FINISHED when nothing is left."""
        work = self._coordinator.next_work()
        if work is None:
            return Searcher.FINISHED if self._coordinator.finished else None
        self.work[trial_id] = work
        return self._pack(work)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """The scheduler has heard it already."""

    def save(self, checkpoint_path: str) -> None:
        """The ledger remembers; Tune need not."""

    def restore(self, checkpoint_path: str) -> None:
        """Sweeps resume from the ledger."""


class CoordinatorScheduler(FIFOScheduler):
    """Tune asks it whether a run that reached a rung goes on."""

    def __init__(self, coordinator: Coordinator, searcher: CoordinatorSearcher) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._coordinator = coordinator
        self._searcher = searcher

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:  # noqa: ANN401
        """A run reached a rung; Tune does not ask about runs that ended."""
        work = self._searcher.work[trial.trial_id]
        if self._coordinator.stops_at_rung(work, result[RESULT]):
            del self._searcher.work[trial.trial_id]
            return str(TrialScheduler.STOP)
        return str(TrialScheduler.CONTINUE)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:  # noqa: ANN401
        """The worker is gone, and the run with it."""
        work = self._searcher.work.pop(trial.trial_id, None)
        if work is not None:
            self._coordinator.land(work, lost(_error_text(trial)))


class LandResults(Callback):
    """Takes results out of Tune's books, so that the driver stays small, and lands the ends."""

    def __init__(self, coordinator: Coordinator, searcher: CoordinatorSearcher) -> None:
        self._coordinator = coordinator
        self._searcher = searcher

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        result: dict[str, Any],
        **info: object,
    ) -> None:
        """A run reached a rung, or its end."""
        run_result: RunResult = result.pop(RESULT)
        if run_result.state != "running":
            self._coordinator.land(self._searcher.work.pop(trial.trial_id), run_result)


def lost(text: str) -> RunResult:
    """The result of a run whose worker died."""
    words = " ".join(text.split())
    memory = "OutOfMemory" in words or "out of memory" in words.lower()
    failure: Failure = "out_of_memory" if memory else "interrupted"
    return RunResult("failed", failure=failure, message=f"the worker died: {words}")


def _error_text(trial: Trial) -> str:
    """What Tune noted, on this host, of an error."""
    file = Path(trial.error_file) if trial.error_file else None
    return file.read_text() if file is not None and file.exists() else "for an unknown reason"
