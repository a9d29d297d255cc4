"""Runs of a task in which everything that crosses the contract is recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from bhnbench.checkpoints import from_bytes, to_bytes
from bhnbench.contract import Holdout, Outcome, Predictive, Problem, Report, Task
from bhnbench.seeds import derive_seed, make_rng
from bhnbench.testing.comparison import copy_of
from bhnbench.testing.fitting import Listener, Points


class KilledError(Exception):
    """Stands for SIGKILL: raised by a checkpoint right after it has kept a state."""


@dataclass
class Recording:
    """One run of a task and what was seen of it."""

    seed: int = 1
    fit_seed: int = 1
    noise_sd: float = 0.1  # another value, another method
    fit_points: Points = field(default_factory=lambda: [(1, {"loss": 2.0}), (2, {"loss": 1.0})])
    stop_at: int | None = None  # the report that ends the run
    kill_after: int | None = None  # the save after which the run is killed
    kept: bytes | None = None  # what the checkpoint holds; of an earlier run, to go on from it

    outcome: Outcome | None = None
    live_problems: list[Problem] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)  # as they were when handed to fit
    sampled: list[torch.Tensor] = field(default_factory=list)  # the inputs of each call
    n_saves: int = 0

    def __post_init__(self) -> None:
        self.rng = make_rng(stream="task", seed=self.seed)
        self.listener = Listener(stop_at=self.stop_at)
        self.n_fits = 0

    def run(self, task: Task, holdout: Holdout) -> Recording:
        """Run the task with networks that are not trained: no law of tasks needs them to be."""
        self.outcome = task.evaluate(
            self, holdout=holdout, rng=self.rng, report=self.listener, checkpoint=_Memory(self)
        )
        return self

    @property
    def found(self) -> Outcome:
        """The outcome of a run that came to its end."""
        assert self.outcome is not None, "the run must have ended"
        return self.outcome

    def __call__(
        self,
        problem: Problem,
        *,
        report: Report | None = None,
        warm_start: Predictive | None = None,
    ) -> Predictive:
        """Fit: a network as initialised; it is another one at each call and seed."""
        self.live_problems.append(problem)
        self.problems.append(copy_of(problem))
        self.n_fits += 1
        if report is not None:
            for step, metrics in self.fit_points:
                report(step, metrics)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(stream="fit", seed=self.fit_seed, call=self.n_fits))
            network = problem.network()
        return _Recorded(network.to(problem.train.inputs.dtype).eval(), self.noise_sd, self)

    def many(
        self,
        problems: Sequence[Problem],
        *,
        warm_starts: Sequence[Predictive | None] | None = None,
    ) -> list[Predictive]:
        """Fit one after another."""
        return [self(problem) for problem in problems]


@dataclass
class _Recorded:
    """Outputs of a network plus noise. They carry gradients, as those of a method may."""

    network: nn.Module
    noise_sd: float
    recording: Recording | None

    def sample(
        self, inputs: torch.Tensor, n_samples: int, *, rng: torch.Generator
    ) -> torch.Tensor:
        if self.recording is not None:
            self.recording.sampled.append(inputs.detach().clone())
        outputs: torch.Tensor = self.network(inputs)
        noise = torch.randn(n_samples, *outputs.shape, generator=rng, dtype=outputs.dtype)
        return outputs + self.noise_sd * noise

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"recording": None}  # the predictive is kept, not who watches it


class _Memory:
    """A checkpoint as the runner's: random stream, reports and fits so far come back with it."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording

    def load(self) -> Any | None:  # noqa: ANN401 - a task's own state
        recording = self._recording
        if recording.kept is None:
            return None
        content = from_bytes(recording.kept, trusted=[__name__])
        state, rng_state, points, recording.n_fits = content
        recording.rng.set_state(rng_state)
        recording.listener.points[:] = points
        return state

    def save(self, state: Any) -> None:  # noqa: ANN401
        recording = self._recording
        points = recording.listener.points
        content = (state, recording.rng.get_state(), points, recording.n_fits)
        recording.kept = to_bytes(content, trusted=[__name__])
        recording.n_saves += 1
        if recording.n_saves == recording.kill_after:
            raise KilledError
