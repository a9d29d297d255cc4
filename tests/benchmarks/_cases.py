"""What the benchmarks fit: random data of a given shape, without validation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import pairwise

import torch

from bhnbench.contract import Likelihood, Method, Predictive, Problem, Split
from bhnbench.likelihoods import Categorical, Gaussian
from bhnbench_tasks.networks import mlp

LARGE = (784, 800, 800, 10)  # the papers' network for MNIST
BATCH_SIZE = 128
N_STEPS = 10  # in an epoch


def make_problem(
    sizes: tuple[int, ...],
    batch_size: int,
    *,
    device: str,
    epochs: int = 4,
    n_steps: int = N_STEPS,
) -> Problem:
    """Classes from images; values from one input."""
    n_inputs, *hidden, n_outputs = sizes
    rng = torch.Generator().manual_seed(0)
    inputs = torch.rand(n_steps * batch_size, n_inputs, generator=rng).to(device)
    likelihood: Likelihood = Gaussian() if n_inputs == 1 else Categorical(n_outputs)
    targets = inputs.sin() if n_inputs == 1 else inputs.argsort(1)[:, 0] % n_outputs
    return Problem(
        train=Split(inputs, targets),
        validation=Split(inputs[:0], targets[:0]),
        likelihood=likelihood,
        network=partial(mlp, n_inputs, hidden, n_outputs),
        epochs=epochs,
        batch_size=batch_size,
    )


def fit(method: Method, problem: Problem) -> Predictive:
    """Fit, and hear nothing."""
    return method.fit(problem, rng=torch.Generator().manual_seed(0), report=_ignore)


def _ignore(step: int, metrics: Mapping[str, float]) -> None: ...


def seconds_per_step(method: Method, problem: Problem) -> float:
    """Of the fastest epoch, between two reports: set-up, and a first epoch, are not in it."""
    times: list[float] = []
    rng = torch.Generator().manual_seed(0)
    method.fit(problem, rng=rng, report=lambda *_: times.append(time.perf_counter()))
    n_steps = len(problem.train) // problem.batch_size
    return min(after - before for before, after in pairwise(times)) / n_steps


def in_turn(measures: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """The least of several measurements of each, taken in turn: a slow spell meets them all."""
    found: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(repeats):
        for name, measure in measures.items():
            found[name].append(measure())
    return {name: min(values) for name, values in found.items()}


def show(title: str, headings: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """A table; the first column is text."""
    cells = [list(map(str, row)) for row in [headings, *rows]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    print(f"\n{title}\n")
    for first, *others in cells:
        padded = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        print("  ".join([first.ljust(widths[0]), *padded]).rstrip())
