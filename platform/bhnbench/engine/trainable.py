"""What a Ray worker does: execute one run after another, pausing at rungs."""

from __future__ import annotations

import json
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any

import ray
from ray.tune import Trainable

from bhnbench.engine.rungs import milestones
from bhnbench.errors import StopRunError
from bhnbench.runner import describe, execute
from bhnbench.runs import Point, RunResult
from bhnbench.specs import EarlyTermination, RunSpec, run_from_json, run_to_json

RESULT = "run_result"  # where a Tune result carries a RunResult, or None: nothing to do
HANDLE = "worker"  # where a worker's first result carries its actor's handle
IDLE_SECONDS = 0.1


def pack(
    spec: RunSpec,
    early: EarlyTermination | None,
    *,
    metric: str,
    n_threads: int,
    device: str,
    checkpoint_folder: str | None,
) -> str:
    """A run as a worker is told of it."""
    content = {
        "spec": run_to_json(spec),
        "milestones": milestones(early) if early else [],
        "metric": metric,
        "n_threads": n_threads,
        "device": device,
        "checkpoint": f"{checkpoint_folder}/{spec.key}.pt" if checkpoint_folder else None,
    }
    return json.dumps(content)


class RunTrainable(Trainable):
    """A worker: serves many runs, one at a time, and imports torch once.

    Tune knows it as one trial for as long as there is work. What it is to do next it is told by
    the driver, which calls ``give`` on the handle that the first result brings.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Nothing to do yet."""
        self._execution: _Execution | None = None
        self._introduced = False

    def give(self, run: str) -> None:
        """Leave the last run, which may stand at a rung, and begin another."""
        self.cleanup()
        self._execution = _Execution(json.loads(run))

    def step(self) -> dict[str, Any]:
        """Go on to the next rung, or to the end of the run, or wait a little for another."""
        if not self._introduced:
            self._introduced = True
            return {HANDLE: ray.get_runtime_context().current_actor, RESULT: None}
        if self._execution is None:
            time.sleep(IDLE_SECONDS)
            return {RESULT: None}
        result = self._execution.advance()
        if result.state != "running":
            self._execution = None
        return {RESULT: result}

    def cleanup(self) -> None:
        """Leave the last run."""
        if self._execution is not None:
            self._execution.abandon()
            self._execution = None


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
        return execute(
            run_from_json(self._work["spec"]),
            listen=self._listen,
            checkpoint_path=self._work["checkpoint"],
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
