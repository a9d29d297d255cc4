"""What the training loop trains: a user's network with what a method adds to it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
from torch import nn

from bhnbench.contract import Problem
from bhnbench_methods.layers import LAYERS, Site, trace
from bhnbench_methods.predictive import map_inputs
from bhnbench_methods.streams import seeded

Forward = tuple[torch.Tensor, torch.Tensor]  # outputs (n, n_outputs), penalty in nats ()


class Model(nn.Module, ABC):
    """A network whose weights may be random. Once trained it is the predictive of its method."""

    @abstractmethod
    def draw_noise(self, inputs: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        """The noise of one training step on ``inputs``; ``rng`` lives on their device."""

    @abstractmethod
    def forward(self, inputs: torch.Tensor, noise: torch.Tensor) -> Forward:
        """Outputs, and the penalty on the parameters: a KL or a negative log prior."""

    @abstractmethod
    def sample(
        self, inputs: torch.Tensor, n_samples: int, *, rng: torch.Generator
    ) -> torch.Tensor:
        """Outputs ``(n_samples, n, n_outputs)``, differentiable in ``inputs``."""


class PointModel(Model):
    """A network as it is, with a Gaussian prior of precision ``weight_decay`` on its weights."""

    def __init__(self, problem: Problem, weight_decay: float) -> None:
        super().__init__()
        self.network = new_network(problem)
        self.weight_decay = weight_decay
        self.n_activations = trace(self.network, problem.train.inputs[:2]).n_activations

    def draw_noise(self, inputs: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        """None."""
        return inputs.new_empty(0)

    def forward(self, inputs: torch.Tensor, noise: torch.Tensor) -> Forward:
        """Outputs and negative log prior."""
        outputs: torch.Tensor = self.network(inputs)
        return outputs, negative_log_prior(self.network, outputs, self.weight_decay)

    def sample(
        self, inputs: torch.Tensor, n_samples: int, *, rng: torch.Generator
    ) -> torch.Tensor:
        """The same outputs ``n_samples`` times; nothing is drawn from ``rng``."""
        outputs = map_inputs(self.network, inputs, self.n_activations)
        return outputs.expand(n_samples, *outputs.shape)


def new_network(problem: Problem) -> nn.Module:
    """The problem's network on the device, and in the floating-point type, of its inputs."""
    inputs = problem.train.inputs
    network = problem.network().to(inputs.device)
    return network.to(inputs.dtype) if inputs.is_floating_point() else network


def find_layers(problem: Problem) -> tuple[Site, ...]:
    """The Linear and Conv layers of the problem's network, in the order of execution."""
    inputs = problem.train.inputs[:2]
    with seeded(0, inputs.device):
        return trace(new_network(problem), inputs).sites


def negative_log_prior(
    network: nn.Module, outputs: torch.Tensor, precision: float
) -> torch.Tensor:
    """``precision / 2 |w|^2`` over the weights of Linear and Conv layers; biases are free.

    The constant of the Gaussian density is left out.
    """
    if precision == 0:
        return outputs.new_zeros(())
    weights: Iterable[torch.Tensor] = (
        module.weight for module in network.modules() if isinstance(module, LAYERS)
    )
    return 0.5 * precision * torch.stack([w.square().sum() for w in weights]).sum()
