"""Speed of the tasks, as ratios in one run; no number means anything without its neighbours.

Run: python -m tests.benchmarks.tasks [--threads 2] [--table yacht] [SECTION ...]

splits     the splits of a table trained together over one after another
bald       BALD of 2000 candidates with 100 posterior samples over 100 deterministic passes
share      of a run's time, what is spent outside fit and posterior sampling
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from bhnbench import uncertainty
from bhnbench.contract import Method, Predictive, Problem, Report
from bhnbench.errors import PosteriorWarning
from bhnbench.plugins import installed, load_method, load_task
from bhnbench.seeds import make_rng
from tests.benchmarks._cases import BATCH_SIZE, LARGE, fit, in_turn, make_problem, show

REPEATS = 3
NARROW: dict[str, Any] = {"width": 50, "n_coupling_layers": 2}  # of sweeps/uci_regression.yaml
TRAINED: dict[str, tuple[str, dict[str, Any]]] = {
    "maximum_likelihood": ("maximum_likelihood", {}),
    "mc_dropout": ("mc_dropout", {}),
    "bayes_by_backprop": ("bayes_by_backprop", {}),
    "bayesian_hypernet": ("bayesian_hypernet", {}),
    "bayesian_hypernet, 2 blocks of 50 units": ("bayesian_hypernet", NARROW),
}
BALD = ("mc_dropout", "bayesian_hypernet")
N_CANDIDATES, N_SAMPLES = 2000, 100


# --- a run without a ledger --------------------------------------------------------------------


class Clock:
    """Adds up the seconds of what it runs."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self, work: Callable[[], Any]) -> Any:
        """Run ``work``."""
        start = time.perf_counter()
        try:
            return work()
        finally:
            self.seconds += time.perf_counter() - start


@dataclass
class Sampled:
    """A predictive whose sampling is timed."""

    inner: Predictive
    clock: Clock

    def sample(
        self, inputs: torch.Tensor, n_samples: int, *, rng: torch.Generator
    ) -> torch.Tensor:
        """As the inner one."""
        return self.clock(lambda: self.inner.sample(inputs, n_samples, rng=rng))

    def __getattr__(self, name: str) -> Any:
        if name == "inner":
            raise AttributeError(name)
        return getattr(self.inner, name)


class TimedFit:
    """A method as a task calls it; ``together`` or one fit after another."""

    def __init__(self, method: Method, *, together: bool = True) -> None:
        self.method, self.together = method, together
        self.fitting, self.sampling = Clock(), Clock()
        self.n_fits = 0

    def __call__(
        self,
        problem: Problem,
        *,
        report: Report | None = None,
        warm_start: Predictive | None = None,
    ) -> Predictive:
        """One fit."""
        return self.many([problem], warm_starts=[warm_start])[0]

    def many(
        self,
        problems: Sequence[Problem],
        *,
        warm_starts: Sequence[Predictive | None] | None = None,
    ) -> list[Predictive]:
        """Several fits."""
        calls = range(self.n_fits, self.n_fits + len(problems))
        self.n_fits += len(problems)
        starts = [bare(start) for start in warm_starts or [None] * len(problems)]
        problems = [replace(problem, prior=bare(problem.prior)) for problem in problems]
        arguments = [problems, [make_rng(call=call) for call in calls], starts]
        groups = [arguments]
        if not self.together:
            groups = [[[value] for value in one] for one in zip(*arguments, strict=True)]
        predictives = self.fitting(lambda: [p for group in groups for p in self._fit(*group)])
        return [Sampled(predictive, self.sampling) for predictive in predictives]

    def _fit(self, problems: Any, rngs: Any, starts: Any) -> list[Predictive]:
        reports = [ignore] * len(problems)
        return self.method.fit_many(problems, rngs=rngs, reports=reports, warm_starts=starts)


def bare(predictive: Predictive | None) -> Predictive | None:
    """What the method itself returned."""
    return predictive.inner if isinstance(predictive, Sampled) else predictive


def ignore(step: int, metrics: Any) -> None:
    """Hear nothing."""


class NoCheckpoint:
    """Keeps nothing."""

    def load(self) -> None:
        """Nothing."""

    def save(self, state: Any) -> None:
        """Nothing."""


def run_task(name: str, settings: dict[str, Any], timed: TimedFit) -> float:
    """Seconds of one run that is scored on validation data."""
    task = load_task(name)(**settings)
    start = time.perf_counter()
    task.evaluate(
        timed, holdout="validation", rng=make_rng(), report=ignore, checkpoint=NoCheckpoint()
    )
    return time.perf_counter() - start


# --- splits -----------------------------------------------------------------------------------


def show_splits(table: str) -> None:
    """Seconds of all fits of one configuration, from the network's making to its last epoch."""
    rows = []
    for label, (name, settings) in TRAINED.items():
        method = load_method(name)(**settings)
        cases = {"together": True, "one by one": False}
        measures = {
            case: partial(fit_seconds, method, table, together) for case, together in cases.items()
        }
        seconds = in_turn(measures, REPEATS)
        ratio = seconds["one by one"] / seconds["together"]
        rows.append([label, *(f"{seconds[case]:.2f}" for case in cases), f"{ratio:.1f}", ">= 5"])
    show(
        f"All splits of {table}, 1 x 50 units, 40 epochs",
        ["method", "together, s", "one by one, s", "ratio", "target"],
        rows,
    )


def fit_seconds(method: Method, table: str, together: bool) -> float:
    """Of a whole run."""
    timed = TimedFit(method, together=together)
    run_task("uci_regression", {"dataset": table, "n_samples": 2}, timed)
    return timed.fitting.seconds


# --- bald -------------------------------------------------------------------------------------


def show_bald() -> None:
    """A round's acquisition: samples of all candidates, and their scores."""
    problem = make_problem(LARGE, BATCH_SIZE, device="cpu", epochs=1)
    images = torch.rand(N_CANDIDATES, LARGE[0], generator=make_rng())
    one = fit(load_method("maximum_likelihood")(), problem)
    predictives = {name: fit(load_method(name)(), problem) for name in BALD}
    measures = {"passes": partial(seconds_of, lambda: passes(one, images))}
    for name, predictive in predictives.items():
        measures[name] = partial(seconds_of, partial(acquire, predictive, images))
    with torch.no_grad():
        seconds = in_turn(measures, REPEATS)
    rows = [
        [
            name,
            f"{value:.2f}",
            f"{value / seconds['passes']:.2f}",
            "<= 1.5" if name in BALD else "",
        ]
        for name, value in seconds.items()
    ]
    show(
        f"BALD of {N_CANDIDATES} candidates, {N_SAMPLES} samples, {'-'.join(map(str, LARGE))}",
        ["method", "s", "ratio", "target"],
        rows,
    )


def passes(predictive: Predictive, images: torch.Tensor) -> None:
    """As many forward passes as there are samples."""
    for _ in range(N_SAMPLES):
        predictive.sample(images, 1, rng=torch.Generator())


def acquire(predictive: Predictive, images: torch.Tensor) -> None:
    """The ten images of the highest BALD."""
    outputs = predictive.sample(images, N_SAMPLES, rng=make_rng())
    uncertainty.bald(uncertainty.class_probabilities(outputs)).topk(10)


def seconds_of(work: Callable[[], None]) -> float:
    """Of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


# --- share ------------------------------------------------------------------------------------


def show_share() -> None:
    """Every task with its defaults; the second of two runs, when data sets have been read.

    The dense network that `compression` compares with is trained once a process for all methods
    and seeds that share it, and so not in the second run.
    """
    rows = []
    for name, plugin in installed("task").items():
        if plugin.package != "bhnbench":
            continue
        for _ in range(2):
            timed = TimedFit(load_method("mc_dropout")(rate=0.1))
            seconds = run_task(name, {}, timed)
        own = timed.fitting.seconds, timed.sampling.seconds
        rest = 100 * (1 - sum(own) / seconds)
        times = [f"{value:.2f}" for value in (seconds, *own)]
        rows.append([name, *times, f"{rest:.1f}", "< 10"])
    show(
        "Time of a run of mc_dropout outside fit and posterior sampling",
        ["task", "run, s", "fit, s", "samples, s", "rest, %", "target"],
        rows,
    )


def main() -> None:
    """Print the tables asked for, all without arguments."""
    sections: dict[str, Callable[[], None]] = {
        "splits": lambda: show_splits(given.table),
        "bald": show_bald,
        "share": show_share,
    }
    parser = argparse.ArgumentParser(description="Speed of the tasks, as ratios in one run.")
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(sections))
    parser.add_argument("--table", default="yacht", help="of uci_regression; diabetes is bundled")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    warnings.simplefilter("ignore", PosteriorWarning)  # fits of one epoch
    print(f"cpu, {given.threads} threads, torch {torch.__version__}")
    for name in given.sections or sections:
        sections[name]()


if __name__ == "__main__":
    main()
