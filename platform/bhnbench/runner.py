"""Executes one run in this process: no Ray, no database, no MLflow."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

from bhnbench.checkpoints import RunCheckpoint
from bhnbench.clock import Clock
from bhnbench.contract import (
    Method,
    Outcome,
    Predictive,
    Problem,
    Report,
    Task,
)
from bhnbench.devices import device_name, missing, moved_to, on_device, unwrapped
from bhnbench.errors import (
    BhnbenchError,
    DataError,
    DivergedError,
    StopRunError,
    UnsupportedError,
)  # fmt: skip
from bhnbench.memory import PeakMemory
from bhnbench.outcomes import checked_outcome, plain_metrics
from bhnbench.plugins import load_target
from bhnbench.provenance import provenance_of
from bhnbench.runs import FINAL_FAILURES, Cost, Failure, Point, RunResult, RunState
from bhnbench.seeds import make_rng
from bhnbench.specs import PluginSpec, RunSpec
from bhnbench.storage import place_at
from bhnbench.warning_log import WarningLog
from bhnbench.words import one_line

Listen = Callable[[Sequence[Point], Callable[[], RunResult]], None]
"""Hears the reports so far, and can ask for all that is known of the run at this point."""


def load_task(spec: PluginSpec) -> Task:
    """The task, bound to its settings."""
    return cast("Task", load_target("task", spec.target)(**spec.settings))


def load_method(spec: PluginSpec) -> Method:
    """The method, bound to its configuration."""
    return cast("Method", load_target("method", spec.target)(**spec.settings))


def execute(
    spec: RunSpec,
    *,
    listen: Listen | None = None,
    checkpoint_path: Path | str | None = None,
    n_threads: int = 1,
    device: str = "cpu",
) -> RunResult:
    """Execute a run; whatever goes wrong in it becomes its result.

    Args:
        spec: what to run.
        listen: hears each report; may raise ``StopRunError`` to end the run.
        checkpoint_path: where a long task keeps its progress, a file or an address such as
            ``s3://bucket/name``; removed when the run is done.
        n_threads: torch threads.
        device: where the problem's tensors go.
    """
    import torch

    torch.set_num_threads(n_threads)
    problem = missing(device)
    if problem is not None:
        return RunResult("failed", failure="error", message=problem)
    run = _Run(spec, listen, checkpoint_path, device, n_threads)
    try:
        result = run.snapshot("done", outcome=run.evaluate())
    except StopRunError:
        result = run.snapshot("pruned")
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plugin may even call sys.exit
        result = run.snapshot("failed", failure=classify(error), message=describe(error))
    if result.state != "failed" or result.failure in FINAL_FAILURES:
        run.checkpoint.remove()
    return result


class _Run:
    """One run while it runs: binds ``fit`` and hears reports."""

    def __init__(
        self,
        spec: RunSpec,
        listen: Listen | None,
        checkpoint_path: Path | str | None,
        device: str,
        n_threads: int,
    ) -> None:
        self.spec = spec
        self.points: list[Point] = []
        self.n_fits = 0
        self.clock = Clock()
        self.warnings = WarningLog()
        self._listen = listen
        self._device = device
        self._n_threads = n_threads
        self._memory = PeakMemory(device)
        self._rng = make_rng(stream="task", seed=spec.seed)
        place = place_at(checkpoint_path) if checkpoint_path is not None else None
        self.checkpoint = RunCheckpoint(self, spec.key, self._rng, place)

    def evaluate(self) -> Outcome:
        task = load_task(self.spec.task)
        _check_data(task, self.spec.task)
        self._method = load_method(self.spec.method)
        with self.warnings.listening():  # the plugins, imported by now, can set no filter before
            outcome = task.evaluate(
                _BoundFit(self),
                holdout=self.spec.holdout,
                rng=self._rng,
                report=self.report,
                checkpoint=self.checkpoint,
            )
        return checked_outcome(outcome, task)

    def fit_many(
        self,
        problems: Sequence[Problem],
        reports: Sequence[Report],
        warm_starts: Sequence[Predictive | None],
    ) -> list[Predictive]:
        if self._device != "cpu":
            problems = [moved_to(problem, self._device) for problem in problems]
        for problem in problems:
            self._check_support(problem)
        calls = range(self.n_fits + 1, self.n_fits + len(problems) + 1)
        self.n_fits += len(problems)
        rngs = [make_rng(stream="fit", seed=self.spec.seed, call=call) for call in calls]
        starts = [unwrapped(start) for start in warm_starts]
        with self.clock.fitting(), self.warnings.listening():  # again: the task may set filters
            predictives = self._method.fit_many(
                problems, rngs=rngs, reports=reports, warm_starts=starts
            )
        if self._device == "cpu":
            return predictives
        return [on_device(predictive, self._device) for predictive in predictives]

    def _check_support(self, problem: Problem) -> None:
        reason = self._method.supports(problem)
        if problem.prior is not None and not self._method.takes_prior:
            reason = "it cannot take an earlier posterior as its prior"
        if reason is not None:
            raise UnsupportedError(reason)

    def report(self, step: int, metrics: Mapping[str, float]) -> None:
        self.points.append((operator.index(step), plain_metrics(metrics)))
        if self._listen is not None:
            with self.clock.paused():
                self._listen(self.points, partial(self.snapshot, "running"))

    def snapshot(
        self,
        state: RunState,
        *,
        outcome: Outcome | None = None,
        failure: Failure | None = None,
        message: str = "",
    ) -> RunResult:
        clock = self.clock
        return RunResult(
            state,
            outcome=outcome,
            failure=failure,
            message=message,
            points=list(self.points),
            warnings=tuple(self.warnings.texts),
            cost=Cost(clock.fit_seconds, clock.score_seconds, self._memory.peak_mb()),
            provenance=provenance_of(self.spec, device_name(self._device), self._n_threads),
        )


@dataclass(frozen=True)
class _BoundFit:
    """The run's method, as its task calls it."""

    run: _Run

    def __call__(
        self,
        problem: Problem,
        *,
        report: Report | None = None,
        warm_start: Predictive | None = None,
    ) -> Predictive:
        return self.run.fit_many([problem], [report or _silent], [warm_start])[0]

    def many(
        self,
        problems: Sequence[Problem],
        *,
        warm_starts: Sequence[Predictive | None] | None = None,
    ) -> list[Predictive]:
        starts = warm_starts or [None] * len(problems)
        return self.run.fit_many(problems, [_silent] * len(problems), starts)


def _check_data(task: Task, spec: PluginSpec) -> None:
    """A user's file may have changed since the run was planned, or be another on this machine."""
    if task.data_digest != spec.data_digest:
        raise DataError(
            f"{spec.name}: the digest of its data must be {spec.data_digest!r}, as planned, but "
            f"is {task.data_digest!r}; start the sweep again"
        )


def _silent(_step: int, _metrics: Mapping[str, float]) -> None:
    """For fits whose steps are not the run's steps."""


def classify(error: BaseException) -> Failure:
    """The class of a failure."""
    if isinstance(error, DivergedError):
        return "diverged"
    if isinstance(error, UnsupportedError):
        return "unsupported"
    text = str(error).lower()
    memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if memory or "out of memory" in text or "can't allocate memory" in text:
        return "out_of_memory"
    return "error"


def describe(error: BaseException) -> str:
    """One line: what happened and where."""
    text = one_line(error)
    if isinstance(error, BhnbenchError):
        return text
    trace, place = error.__traceback__, ""
    while trace is not None:
        code = trace.tb_frame.f_code
        place = f" ({Path(code.co_filename).name}:{trace.tb_lineno}, in {code.co_name})"
        trace = trace.tb_next
    return f"{type(error).__name__}: {text}{place}"
