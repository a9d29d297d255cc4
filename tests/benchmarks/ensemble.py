"""Time of training an ensemble of five together, over that of one network: five would be no gain.

Run: python -m tests.benchmarks.ensemble
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from itertools import pairwise

import torch
from torch import nn

from bhnbench.contract import Method, Problem, Split
from bhnbench.likelihoods import Categorical, Gaussian
from bhnbench_methods.deep_ensemble import DeepEnsemble
from bhnbench_methods.maximum_likelihood import MaximumLikelihood

N, EPOCHS, BATCH_SIZE, REPEATS = 512, 20, 32, 5


def mlp(*sizes: int) -> nn.Module:
    """A ReLU network."""
    layers: list[nn.Module] = []
    for n_inputs, n_outputs in pairwise(sizes):
        layers += [nn.Linear(n_inputs, n_outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def problems() -> dict[str, Problem]:
    """Random data without validation: only the steps are timed."""
    rng = torch.Generator().manual_seed(0)
    images, x = torch.randn(N, 64, generator=rng), torch.randn(N, 1, generator=rng)
    digits = Split(images, torch.randint(10, (N,), generator=rng))
    curve = Split(x, x.sin())
    make = partial(Problem, epochs=EPOCHS, batch_size=BATCH_SIZE)
    return {
        "64-100-100-10": make(
            train=digits,
            validation=Split(images[:0], digits.targets[:0]),
            likelihood=Categorical(10),
            network=partial(mlp, 64, 100, 100, 10),
        ),
        "1-50-1 (mean and scale)": make(
            train=curve,
            validation=Split(x[:0], x[:0]),
            likelihood=Gaussian(),
            network=partial(mlp, 1, 50, 2),
        ),
    }


def milliseconds_per_step(method: Method, problem: Problem) -> float:
    """The fastest of several fits."""

    def report(step: int, metrics: Mapping[str, float]) -> None:
        pass

    seconds = []
    for seed in range(REPEATS):
        start = time.perf_counter()
        method.fit(problem, rng=torch.Generator().manual_seed(seed), report=report)
        seconds.append(time.perf_counter() - start)
    return 1000 * min(seconds) / (EPOCHS * N / BATCH_SIZE)


def main() -> None:
    """Print the ratios."""
    torch.set_num_threads(1)
    for name, problem in problems().items():
        one = milliseconds_per_step(MaximumLikelihood(), problem)
        five = milliseconds_per_step(DeepEnsemble(n_members=5), problem)
        print(f"{name}: {one:.3f} ms a step, five together {five:.3f} ms: ratio {five / one:.2f}")


if __name__ == "__main__":
    main()
