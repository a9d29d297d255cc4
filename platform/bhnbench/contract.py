"""The contract between the platform, methods and tasks. Imports nothing of ours.

Shapes: ``n`` examples, ``n_samples`` posterior samples. The sample dimension always comes first.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import torch
    from matplotlib.figure import Figure

Direction = Literal["maximize", "minimize"]
Holdout = Literal["validation", "test"]
Report = Callable[[int, Mapping[str, float]], None]
"""``report(step, {metric: value})``: the only word to the outside; it may raise to end the run."""


@dataclass(frozen=True)
class Metric:
    """What a score means."""

    name: str
    direction: Direction
    unit: str
    doc: str = ""


@dataclass(frozen=True)
class Split:
    """Examples: inputs ``(n, *input_shape)``; targets ``(n,)`` classes or ``(n, d)`` values."""

    inputs: torch.Tensor
    targets: torch.Tensor

    def __len__(self) -> int:
        return len(self.inputs)


class Likelihood(Protocol):
    """p(target | outputs): how a network's outputs are read and scored."""

    def log_prob(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Log density in nats: ``(..., n, n_outputs), (n, ...) -> (..., n)``."""

    def scores(self, outputs: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
        """Metrics of the predictive mixture of outputs ``(n_samples, n, n_outputs)``."""


@dataclass(frozen=True)
class Problem:
    """What a task hands to a method. Never test data; the budget is the same for all methods."""

    train: Split
    validation: Split
    likelihood: Likelihood
    network: Callable[[], torch.nn.Module]  # maps inputs to outputs (n, n_outputs)
    epochs: int
    batch_size: int
    prior: Predictive | None = None  # belief before these data: what a fit to others returned


class Predictive(Protocol):
    """What ``fit`` returns: samples of the network's outputs under the posterior.

    Picklable, and of classes of ``torch.nn`` and of plugins' packages: a checkpoint may hold it.
    """

    def sample(
        self, inputs: torch.Tensor, n_samples: int, *, rng: torch.Generator
    ) -> torch.Tensor:
        """Outputs ``(n_samples, n, n_outputs)``, differentiable in ``inputs``."""


@runtime_checkable
class Prunable(Protocol):
    """A predictive that knows which weights of its network it does not need."""

    def sparsity(self) -> Mapping[str, float]:
        """Fraction of zero weights in each layer, by its name in the network."""

    def pruned(self) -> torch.nn.Module:
        """The problem's network as a plain module, pruned weights zero and means elsewhere."""


class Method(ABC):
    """A frozen dataclass whose fields are its hyperparameters.

    Random streams come only from ``rng``; tensors of the problem carry the device.
    """

    version: ClassVar[str] = "1"  # raise it when the same configuration gives other numbers
    takes_prior: ClassVar[bool] = False  # whether it heeds ``problem.prior``

    @abstractmethod
    def fit(
        self,
        problem: Problem,
        *,
        rng: torch.Generator,
        report: Report,
        warm_start: Predictive | None = None,
    ) -> Predictive:
        """Train on ``problem.train``; go on from ``warm_start``, an earlier fit's result.

        Warns:
            PosteriorWarning: the posterior has collapsed, or its samples are not finite.
        """

    def fit_many(
        self,
        problems: Sequence[Problem],
        *,
        rngs: Sequence[torch.Generator],
        reports: Sequence[Report],
        warm_starts: Sequence[Predictive | None],
    ) -> list[Predictive]:
        """Fit several replicas; override to train them as one computation, same results."""
        replicas = zip(problems, rngs, reports, warm_starts, strict=True)
        return [
            self.fit(problem, rng=rng, report=report, warm_start=warm_start)
            for problem, rng, report, warm_start in replicas
        ]

    def supports(self, problem: Problem) -> str | None:
        """The reason why this method cannot do ``problem``, or None."""
        return None


class Fit(Protocol):
    """A method bound to its configuration, random stream and clock."""

    def __call__(
        self,
        problem: Problem,
        *,
        report: Report | None = None,
        warm_start: Predictive | None = None,
    ) -> Predictive:
        """Fit. Pass ``report`` on where the fit's steps are the run's steps."""

    def many(
        self,
        problems: Sequence[Problem],
        *,
        warm_starts: Sequence[Predictive | None] | None = None,
    ) -> list[Predictive]:
        """Fit folds and the like together; the results are those of one fit after another."""


class Checkpoint(Protocol):
    """The progress of one run, kept where a restarted run finds it."""

    def load(self) -> Any | None:  # noqa: ANN401 - a task's own state
        """The state saved last, or None; random streams are set back with it."""

    def save(self, state: Any) -> None:  # noqa: ANN401
        """Keep ``state``: tensors, arrays, plain containers, and predictives.

        It is read without running code, so it may hold objects of classes of ``torch.nn`` and of
        the packages of installed plugins, but no functions.
        """


Table = Mapping[str, "np.ndarray"]  # column name -> values, all of one length


@dataclass(frozen=True)
class Outcome:
    """What one run found: ``{metric: value}``, and tables from which figures are drawn later."""

    scores: Mapping[str, float]
    tables: Mapping[str, Table] = field(default_factory=dict)


Draw = Callable[[Mapping[str, Sequence[Outcome]]], "Figure"]
"""Draws one figure from the outcomes (one a seed) of each method, by its label."""


class Task(ABC):
    """A frozen dataclass whose fields are its settings. It drives: it calls ``fit``."""

    version: ClassVar[str] = "1"  # raise it when the same settings give other numbers
    metrics: ClassVar[tuple[Metric, ...]]  # the first is the primary one
    figures: ClassVar[Mapping[str, Draw]] = {}

    @property
    def data_digest(self) -> str:
        """Digest of the data read from outside; part of the run's key. Must not load them."""
        return ""

    def prepare(self) -> None:  # noqa: B027 - nothing to do is the ordinary case
        """Fetch and check the data, once, before a sweep hands out runs of this task."""

    @abstractmethod
    def evaluate(
        self,
        fit: Fit,
        *,
        holdout: Holdout,
        rng: torch.Generator,
        report: Report,
        checkpoint: Checkpoint,
    ) -> Outcome:
        """Fit as the protocol says and score on ``holdout``; scores hold every metric."""


Progress = Callable[[str, int, int | None], None]
"""``progress(path, n_bytes, n_bytes_in_all)`` while a file is fetched; None: nobody knows."""


@dataclass(frozen=True)
class DataFile:
    """A published file of a data set: its place below a data folder, and how to know it."""

    path: str
    digest: str  # "sha256:..." or "md5:..."
    size: int | None = None  # bytes as published, where known
    decompressed: bool = False  # the digest is of what the gzip file holds: mirrors pack it anew


class DataSource(ABC):
    """Where a data set comes from. Its module is light to import: a listing reads them all."""

    doc: str  # "Name: what it holds."
    origin: str  # who made it, and under which licence where one is stated
    files: Sequence[DataFile]  # none: it comes with an installed package
    mirrors: Sequence[str] = ()  # URLs, where known; to one that ends in a slash a name is added

    @property
    @abstractmethod
    def folders(self) -> Sequence[Path]:
        """Where files are looked for, in that order; a download goes to the last one."""

    @abstractmethod
    def locate(self, file: DataFile) -> Path | None:
        """Where the file lies on this machine, unchecked; None where it does not."""

    @abstractmethod
    def verify(self, file: DataFile) -> None:
        """Check a file that lies on this machine.

        Raises:
            DataError: it is missing or wrong; says what to do.
        """

    @abstractmethod
    def prepare(self, progress: Progress) -> None:
        """Fetch what is missing, and check all of it, also what needs no fetching.

        Raises:
            DataError: a file cannot be had, or is not what it should be.
        """
