"""Every built-in method's samples: functions of the inputs, with the right derivatives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial

import pytest
import torch
from torch import nn

from bhnbench.contract import Method, Predictive, Problem, Split
from bhnbench.likelihoods import Gaussian
from bhnbench.plugins import installed
from bhnbench.testing.problems import make_problem
from bhnbench_methods import predictive

NAMES = [name for name, plugin in installed("method").items() if plugin.package == "bhnbench"]
KINDS = ["classification", "regression", "images", "images_regression"]
on_all = [pytest.mark.parametrize("name", NAMES), pytest.mark.parametrize("kind", KINDS)]


def everywhere(test: Callable[..., None]) -> Callable[..., None]:
    for mark in on_all:
        test = mark(test)
    return test


def with_noise(network: Callable[[], nn.Module]) -> nn.Module:
    """A mean for each image, and one standard deviation for all."""

    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean = nn.Sequential(network(), nn.Linear(2, 1, dtype=torch.float64))
            self.raw = nn.Parameter(torch.zeros(1, dtype=torch.float64))

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            mean = self.mean(inputs)
            return torch.cat((mean, self.raw.expand_as(mean)), dim=-1)

    return Noisy()


def problem_of(kind: str) -> Problem:
    problem = make_problem(kind.split("_")[0], epochs=2, dtype=torch.float64)
    if kind != "images_regression":
        return problem
    train, validation = (
        Split(split.inputs, split.inputs.mean((1, 2, 3)).unsqueeze(1))
        for split in (problem.train, problem.validation)
    )
    network = partial(with_noise, problem.network)
    return replace(
        problem, train=train, validation=validation, likelihood=Gaussian(), network=network
    )


@cache
def fitted(name: str, kind: str) -> Predictive:
    """With the method's defaults; or a skip with its reason."""
    method: Method = installed("method")[name].load()()
    problem = problem_of(kind)
    reason = method.supports(problem)
    if reason is not None:
        pytest.skip(f"{name} does not support this problem: {reason}")
    rng = torch.Generator().manual_seed(0)
    return method.fit(problem, rng=rng, report=lambda step, metrics: None)


def sample(model: Predictive, inputs: torch.Tensor, n_samples: int) -> torch.Tensor:
    return model.sample(inputs, n_samples, rng=torch.Generator().manual_seed(1))


@everywhere
def test_every_derivative_in_the_inputs_is_that_of_finite_differences(
    name: str, kind: str
) -> None:
    """Of each output of each sample in each input, where the general law looks along one way."""
    model = fitted(name, kind)
    n = 1 if kind.startswith("images") else 3
    inputs = problem_of(kind).validation.inputs[:n].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: sample(model, x, 3), (inputs,), atol=1e-6)


@everywhere
def test_a_sample_is_a_function(name: str, kind: str) -> None:
    """What it gives for an input depends on no other, nor on how many there are, or in what order.

    So what is drawn may not depend on the inputs.
    """
    model = fitted(name, kind)
    inputs = problem_of(kind).validation.inputs
    outputs = sample(model, inputs, 5)
    for rows in ([3], [7, 0, 7], list(range(10, 24))):
        torch.testing.assert_close(sample(model, inputs[rows], 5), outputs[:, rows])


@everywhere
@pytest.mark.parametrize("max_activations", [1, 2000])
def test_chunks_do_not_matter(
    name: str, kind: str, max_activations: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = fitted(name, kind)
    inputs = problem_of(kind).validation.inputs
    expected = sample(model, inputs, 11)
    monkeypatch.setattr(predictive, "MAX_ACTIVATIONS", max_activations)
    torch.testing.assert_close(sample(model, inputs, 11), expected)
