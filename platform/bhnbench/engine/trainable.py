"""What a Ray worker does: execute one run after another, pausing at rungs."""

from __future__ import annotations

import json
import threading
from bisect import bisect_right
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from ray.tune import Trainable

from bhnbench.engine.rungs import milestones
from bhnbench.errors import StopRunError
from bhnbench.runner import describe, execute
from bhnbench.runs import Point, RunResult
from bhnbench.specs import EarlyTermination, RunSpec, run_from_json, run_to_json

RESULT = "run_result"  # where a Tune result carries a RunResult


def pack(
    spec: RunSpec,
    early: EarlyTermination | None,
    *,
    metric: str,
    n_threads: int,
    device: str,
    checkpoint_folder: str | None,
) -> dict[str, str]:
    """A run as a Tune configuration: one string, which Tune copies but does not look into."""
    content = {
        "spec": run_to_json(spec),
        "milestones": milestones(early) if early else [],
        "metric": metric,
        "n_threads": n_threads,
        "device": device,
        "checkpoint": f"{checkpoint_folder}/{spec.key}.pt" if checkpoint_folder else None,
    }
    return {"run": json.dumps(content)}


class RunTrainable(Trainable):
    """Serves many runs, one at a time; with ``reuse_actors`` it imports torch once."""

    def setup(self, config: dict[str, Any]) -> None:
        """Begin with the first run."""
        self._execution = _Execution(json.loads(config["run"]))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Leave the last run, which may stand at a rung, and begin the next."""
        self._execution.abandon()
        self._execution = _Execution(json.loads(new_config["run"]))
        return True

    def step(self) -> dict[str, Any]:
        """Go on to the next rung or to the end."""
        result = self._execution.advance()
        return {RESULT: result, "done": result.state != "running"}

    def cleanup(self) -> None:
        """Leave the last run."""
        self._execution.abandon()


class _Execution:
    """One run in a thread of its own, so that it can wait at a rung for the driver's word."""

    def __init__(self, work: dict[str, Any]) -> None:
        self._work = work
        self._reached: SimpleQueue[RunResult] = SimpleQueue()
        self._go_on: SimpleQueue[None] = SimpleQueue()
        self._abandoned = False
        self._last_step = 0
        self._thread: threading.Thread | None = None

    def advance(self) -> RunResult:
        """Run until the next rung (state ``running``) or the end."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()
        else:
            self._go_on.put(None)
        return self._reached.get()

    def abandon(self) -> None:
        """End the run where it stands and wait until it is gone."""
        if self._thread is not None and self._thread.is_alive():
            self._abandoned = True
            self._go_on.put(None)
            self._thread.join()

    def _run(self) -> None:
        try:
            result = self._execute()
        except BaseException as error:  # whatever happens, the driver must hear of it
            result = RunResult("failed", failure="error", message=describe(error))
        self._reached.put(result)

    def _execute(self) -> RunResult:
        checkpoint = self._work["checkpoint"]
        return execute(
            run_from_json(self._work["spec"]),
            listen=self._listen,
            checkpoint_path=Path(checkpoint) if checkpoint else None,
            n_threads=self._work["n_threads"],
            device=self._work["device"],
        )

    def _listen(self, points: Sequence[Point], so_far: Callable[[], RunResult]) -> None:
        if not self._abandoned:
            rungs, (step, metrics) = self._work["milestones"], points[-1]
            if self._work["metric"] not in metrics:
                return  # a rung has nothing to compare
            passed = bisect_right(rungs, step) > bisect_right(rungs, self._last_step)
            self._last_step = step
            if not passed:
                return
            self._reached.put(so_far())
            self._go_on.get()
        if self._abandoned:  # again at every report, should the plugin swallow it
            raise StopRunError
