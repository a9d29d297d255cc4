"""A plain network, trained by maximum likelihood: what an attacker can make without a method."""

from __future__ import annotations

from functools import lru_cache

import torch

from bhnbench.contract import Problem
from bhnbench_tasks.image_task import ImageTask

LEARNING_RATE = 1e-3


@lru_cache(maxsize=8)
def trained_once(task: ImageTask, digest: str, seed: int) -> torch.nn.Module:
    """The plain network of a task's problem, trained once a process for all methods.

    Args:
        task: gives the problem.
        digest: of its data, so that other data of the same name are not taken for these.
        seed: of initialisation and order.
    """
    rng = torch.Generator().manual_seed(seed)
    return train_plain_network(task.problem(task.load()), rng)


def train_plain_network(problem: Problem, rng: torch.Generator) -> torch.nn.Module:
    """The problem's network after its epochs of Adam; depends on the problem and ``rng`` alone."""
    inputs, targets = problem.train.inputs, problem.train.targets
    network = _initialised(problem, rng)
    optimiser = torch.optim.Adam(network.parameters(), LEARNING_RATE)
    for _ in range(problem.epochs):
        order = torch.randperm(len(targets), generator=rng)
        for rows in torch.split(order, problem.batch_size):
            optimiser.zero_grad()
            loss = -problem.likelihood.log_prob(network(inputs[rows]), targets[rows]).mean()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return network.eval().requires_grad_(False)


def _initialised(problem: Problem, rng: torch.Generator) -> torch.nn.Module:
    """Modules draw from torch's global stream, which is left as it was."""
    seed = int(torch.randint(2**63 - 1, (), generator=rng))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return problem.network().to(problem.train.inputs)
