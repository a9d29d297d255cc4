"""Executes one run in this process: no Ray, no database, no MLflow."""

from __future__ import annotations

import operator
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from bhnbench.clock import Clock
from bhnbench.contract import (
    Method,
    Outcome,
    Predictive,
    Problem,
    Prunable,
    Report,
    Split,
    Task,
)
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
from bhnbench.warning_log import WarningLog
from bhnbench.words import one_line

if TYPE_CHECKING:
    import torch

Listen = Callable[[Sequence[Point], Callable[[], RunResult]], None]
"""Hears the reports so far, and can ask for all that is known of the run at this point."""
CHECKPOINT_SECONDS = 5.0  # progress newer than this is cheaper to redo than to write


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
    checkpoint_path: Path | None = None,
    n_threads: int = 1,
    device: str = "cpu",
) -> RunResult:
    """Execute a run; whatever goes wrong in it becomes its result.

    Args:
        spec: what to run.
        listen: hears each report; may raise ``StopRunError`` to end the run.
        checkpoint_path: where a long task keeps its progress; removed when the run is done.
        n_threads: torch threads.
        device: where the problem's tensors go.
    """
    import torch

    torch.set_num_threads(n_threads)
    run = _Run(spec, listen, checkpoint_path, device, n_threads)
    try:
        result = run.snapshot("done", outcome=run.evaluate())
    except StopRunError:
        result = run.snapshot("pruned")
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plugin may even call sys.exit
        result = run.snapshot("failed", failure=classify(error), message=describe(error))
    if checkpoint_path is not None and (
        result.state != "failed" or result.failure in FINAL_FAILURES
    ):
        for file in checkpoint_path.parent.glob(f"{checkpoint_path.name}*"):
            file.unlink(missing_ok=True)  # also what a killed worker was writing
    return result


class _Run:
    """One run while it runs: binds ``fit`` and hears reports."""

    def __init__(
        self,
        spec: RunSpec,
        listen: Listen | None,
        checkpoint_path: Path | None,
        device: str,
        n_threads: int,
    ) -> None:
        self.spec = spec
        self.checkpoint_path = checkpoint_path
        self.points: list[Point] = []
        self.n_fits = 0
        self.clock = Clock()
        self.warnings = WarningLog()
        self._listen = listen
        self._device = device
        self._n_threads = n_threads
        self._memory = PeakMemory(device)

    def evaluate(self) -> Outcome:
        task = load_task(self.spec.task)
        _check_data(task, self.spec.task)
        self._method = load_method(self.spec.method)
        rng = make_rng(stream="task", seed=self.spec.seed)
        with self.warnings.listening():  # the plugins, imported by now, can set no filter before
            outcome = task.evaluate(
                _BoundFit(self),
                holdout=self.spec.holdout,
                rng=rng,
                report=self.report,
                checkpoint=_FileCheckpoint(self, rng),
            )
        return checked_outcome(outcome, task)

    def fit_many(
        self,
        problems: Sequence[Problem],
        reports: Sequence[Report],
        warm_starts: Sequence[Predictive | None],
    ) -> list[Predictive]:
        if self._device != "cpu":
            problems = [_move(problem, self._device) for problem in problems]
        for problem in problems:
            self._check_support(problem)
        calls = range(self.n_fits + 1, self.n_fits + len(problems) + 1)
        self.n_fits += len(problems)
        rngs = [make_rng(stream="fit", seed=self.spec.seed, call=call) for call in calls]
        starts = [_inner(start) for start in warm_starts]
        with self.clock.fitting(), self.warnings.listening():  # again: the task may set filters
            predictives = self._method.fit_many(
                problems, rngs=rngs, reports=reports, warm_starts=starts
            )
        if self._device == "cpu":
            return predictives
        return [_on_device(predictive, self._device) for predictive in predictives]

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
            provenance=provenance_of(self.spec, _device_name(self._device), self._n_threads),
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


class _FileCheckpoint:
    """Keeps a task's progress in a file of the run's own, with all that makes it exact."""

    def __init__(self, run: _Run, rng: torch.Generator) -> None:
        self._run = run
        self._rng = rng
        self._saved_at = time.monotonic()

    def load(self) -> Any | None:  # noqa: ANN401 - a task's own state
        import torch

        path = self._run.checkpoint_path
        if path is None or not path.exists():
            return None
        try:
            content = torch.load(path, weights_only=False)  # our own file, below our own home
            if content["key"] != self._run.spec.key:
                return None
            self._rng.set_state(content["rng"])
        except Exception:  # a torn or foreign file: the run starts afresh
            return None
        self._run.points[:] = content["points"]
        self._run.clock.go_on_from(content["fit_seconds"], content["score_seconds"])
        self._run.n_fits = content["n_fits"]
        self._run.warnings.texts[:] = content.get("warnings", ())  # none in older files
        return content["state"]

    def save(self, state: Any) -> None:  # noqa: ANN401
        import torch

        path = self._run.checkpoint_path
        if path is None or time.monotonic() - self._saved_at < CHECKPOINT_SECONDS:
            return
        content = {
            "key": self._run.spec.key,
            "rng": self._rng.get_state(),
            "points": self._run.points,
            "warnings": self._run.warnings.texts,
            "fit_seconds": self._run.clock.fit_seconds,
            "score_seconds": self._run.clock.score_seconds,
            "n_fits": self._run.n_fits,
            "state": state,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f"{path.name}.", delete=False
        ) as file:
            torch.save(content, file)
        Path(file.name).replace(path)  # whole or not at all
        self._saved_at = time.monotonic()


def _check_data(task: Task, spec: PluginSpec) -> None:
    """A user's file may have changed since the run was planned, or be another on this machine."""
    if task.data_digest != spec.data_digest:
        raise DataError(
            f"{spec.name}: the digest of its data must be {spec.data_digest!r}, as planned, but "
            f"is {task.data_digest!r}; start the sweep again"
        )


def _silent(_step: int, _metrics: Mapping[str, float]) -> None:
    """For fits whose steps are not the run's steps."""


def _move(problem: Problem, device: str) -> Problem:
    """The same problem with its tensors on ``device``."""

    def moved(split: Split) -> Split:
        return Split(split.inputs.to(device), split.targets.to(device))

    return replace(
        problem,
        train=moved(problem.train),
        validation=moved(problem.validation),
        prior=_inner(problem.prior),
    )


def _inner(predictive: Predictive | None) -> Predictive | None:
    """What the method itself returned."""
    return predictive.inner if isinstance(predictive, _OnDevice) else predictive


@dataclass(frozen=True)
class _OnDevice:
    """A predictive on an accelerator, for a task that works on the CPU."""

    inner: Predictive
    device: str

    def sample(
        self, inputs: torch.Tensor, n_samples: int, *, rng: torch.Generator
    ) -> torch.Tensor:
        return self.inner.sample(inputs.to(self.device), n_samples, rng=rng).to(inputs.device)


class _PrunableOnDevice(_OnDevice):
    """One that knows which weights it does not need."""

    def sparsity(self) -> Mapping[str, float]:
        return cast("Prunable", self.inner).sparsity()

    def pruned(self) -> torch.nn.Module:
        return cast("Prunable", self.inner).pruned().cpu()


def _on_device(predictive: Predictive, device: str) -> _OnDevice:
    kind = _PrunableOnDevice if isinstance(predictive, Prunable) else _OnDevice
    return kind(predictive, device)


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


def _device_name(device: str) -> str:
    if device == "cpu":
        return "cpu"
    import torch

    return f"{device}: {torch.cuda.get_device_name()}"
