"""The same Bayesian layers in bayesian-torch and blitz, trained in the same loop.

They are no dependency of this project:

    pip install --no-deps --target DIR bayesian-torch blitz-bayesian-pytorch
    PYTHONPATH=DIR python -m tests.benchmarks.methods peers
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from bhnbench.contract import Problem
from bhnbench.plugins import load_method
from tests.benchmarks._cases import BATCH_SIZE, LARGE, in_turn, make_problem, show
from tests.benchmarks._counting import synchronise

N_REPEATS = 50
Forward = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]  # outputs and KL


def show_peers(device: str) -> None:
    """Three Bayesian layers with ReLU between them, in a plain loop with torch's Adam."""
    problem = make_problem(LARGE, BATCH_SIZE, device=device)
    stacks: dict[str, tuple[Forward, list[nn.Parameter]]] = {}
    for estimator in ("local", "weights"):
        stacks[f"bhnbench, {estimator}"] = our_stack(problem, estimator)
    try:
        stacks |= their_stacks(device)
    except ImportError as error:
        print(f"\n{error.name} is not installed (see tests/benchmarks/_peers.py): no comparison")
    steps = {name: TrainingStep(problem, *stack) for name, stack in stacks.items()}
    seconds = in_turn(steps, N_REPEATS)
    ours = seconds["bhnbench, local"]
    rows = [
        [name, f"{1000 * time_:.2f}", f"{time_ / ours:.2f}"] for name, time_ in seconds.items()
    ]
    show(
        "Bayesian layers in the same loop with the same optimiser (ours no slower wanted)",
        ["layers", "ms a step", "over ours, local"],
        rows,
    )


def our_stack(problem: Problem, estimator: str) -> tuple[Forward, list[nn.Parameter]]:
    """The model of bayes_by_backprop."""
    model = load_method("bayes_by_backprop")(estimator=estimator).make_model(problem)
    rng = torch.Generator(problem.train.inputs.device).manual_seed(0)
    return lambda x: model(x, model.draw_noise(x, rng)), list(model.parameters())


def their_stacks(device: str) -> dict[str, tuple[Forward, list[nn.Parameter]]]:
    """The same layers from the two libraries."""
    from bayesian_torch.layers import LinearFlipout, LinearReparameterization
    from blitz.modules import BayesianLinear

    def stack(make: Callable[[int, int], nn.Module], call: Any) -> Any:
        layers = nn.ModuleList(make(*pair) for pair in pairwise(LARGE))
        layers.to(device)

        def forward(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            kl = x.new_zeros(())
            for i, layer in enumerate(layers):
                x, more = call(layer, x.relu() if i else x)
                kl = kl + more
            return x, kl

        return forward, list(layers.parameters())

    def call_blitz(layer: Any, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return layer(x), layer.log_variational_posterior - layer.log_prior

    def call(layer: nn.Module, x: torch.Tensor) -> Any:
        return layer(x)

    return {
        "bayesian-torch, LinearReparameterization": stack(LinearReparameterization, call),
        "bayesian-torch, LinearFlipout": stack(LinearFlipout, call),
        "blitz, BayesianLinear": stack(BayesianLinear, call_blitz),
    }


class TrainingStep:
    """Called, it makes one step and returns its seconds."""

    def __init__(self, problem: Problem, forward: Forward, parameters: list[nn.Parameter]) -> None:
        self.problem, self.forward = problem, forward
        self.adam = torch.optim.Adam(parameters, lr=1e-3, fused=True)
        self.device = problem.train.inputs.device.type

    def __call__(self) -> float:
        """Minus the ELBO of the first minibatch, its gradient, and Adam."""
        train = self.problem.train
        synchronise(self.device)
        start = time.perf_counter()
        outputs, kl = self.forward(train.inputs[:BATCH_SIZE])
        log_prob = self.problem.likelihood.log_prob(outputs, train.targets[:BATCH_SIZE])
        loss = -log_prob.mean() + kl / len(train)
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        synchronise(self.device)
        return time.perf_counter() - start
