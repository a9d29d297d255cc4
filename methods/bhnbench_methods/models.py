"""What the training loop trains: a user's network with what a method adds to it."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from functools import partial
from typing import cast

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, vmap

from bhnbench.contract import Problem
from bhnbench_methods.checks import check_made, check_rng
from bhnbench_methods.layers import LAYERS, trace
from bhnbench_methods.predictive import Draw, repeat_outputs, sample_outputs
from bhnbench_methods.streams import seeded

_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")  # of what has no repr of its own

Forward = tuple[torch.Tensor, torch.Tensor]  # outputs (n, n_outputs), penalty in nats ()


class Model(nn.Module, ABC):
    """A network whose weights may be random. Once trained it is the predictive of its method."""

    made_by: str = ""  # the class of that method

    @abstractmethod
    def draw_noise(self, inputs: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        """The noise of one training step on ``inputs``; ``rng`` lives on their device."""

    @abstractmethod
    def forward(self, inputs: torch.Tensor, noise: torch.Tensor) -> Forward:
        """Outputs, and the penalty on the parameters: a KL or a negative log prior."""

    @property
    def is_random(self) -> bool:
        """Whether its posterior samples are meant to differ."""
        return True

    def figures(self) -> dict[str, float]:
        """More numbers to report about the present state."""
        return {}

    @abstractmethod
    def sample(
        self, inputs: torch.Tensor, n_samples: int, *, rng: torch.Generator
    ) -> torch.Tensor:
        """Outputs ``(n_samples, n, n_outputs)``, differentiable in ``inputs``."""


class RandomModel(Model):
    """A model whose posterior samples are one network at values drawn anew."""

    n_random: int  # numbers in one draw
    n_activations: int  # numbers computed for one example

    @abstractmethod
    def drawer(self, rng: torch.Generator) -> Draw[torch.Tensor]:
        """What draws the next samples of all that is random, from ``rng`` on the CPU."""

    @abstractmethod
    def run_with(self, inputs: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Outputs given one draw."""

    def sample(
        self, inputs: torch.Tensor, n_samples: int, *, rng: torch.Generator
    ) -> torch.Tensor:
        """Outputs under one draw a sample, the same for all inputs."""
        check_rng(rng)
        return sample_outputs(
            self.run_with,
            inputs,
            self.drawer(rng),
            n_samples,
            n_random=self.n_random,
            n_activations=self.n_activations,
        )


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

    @property
    def is_random(self) -> bool:
        """No: a point estimate."""
        return False

    def sample(
        self, inputs: torch.Tensor, n_samples: int, *, rng: torch.Generator
    ) -> torch.Tensor:
        """The same outputs ``n_samples`` times; nothing is drawn from ``rng``."""
        return repeat_outputs(self.network, inputs, n_samples, n_activations=self.n_activations)


def new_network(problem: Problem) -> nn.Module:
    """The problem's network on the device, and in the floating-point type, of its inputs."""
    inputs = problem.train.inputs
    network = problem.network()
    check_made(network)
    for module in network.modules():
        _own_tensors(module)
    network.to(inputs.device)
    return network.to(inputs.dtype) if inputs.is_floating_point() else network


def _own_tensors(module: nn.Module) -> None:
    """Make all tensors of a module buffers of its state: each replica and warm start has its own.

    Those that it only holds as attributes, and those that it keeps out of its ``state_dict``.
    """
    plain = {name: value for name, value in vars(module).items() if type(value) is torch.Tensor}
    constants = {name: value for name, value in plain.items() if not value.requires_grad}
    for name in constants:
        delattr(module, name)
    for name, value in (constants | dict(module.named_buffers(recurse=False))).items():
        module.register_buffer(name, value)


def is_stackable(problem: Problem, *, draws_its_own: bool = False) -> bool:
    """Whether several of the problem's network can be trained as one computation.

    Not where torch.func has no batching rule for an operation, nor where the network asks for
    the values of its tensors (``if h.max() > 1``); nor, unless ``draws_its_own``, where it draws
    random numbers of its own, which would be others than in separate networks. All end a
    ``vmap``.
    """
    randomness = "different" if draws_its_own else "error"
    inputs = problem.train.inputs[:2]
    with seeded(0, inputs.device), torch.no_grad():
        network = new_network(problem)
        trace(network, inputs)  # makes the parameters of lazy layers
        tensors = dict(network.named_parameters()) | dict(network.named_buffers())
        state = {name: tensor.unsqueeze(0) for name, tensor in tensors.items()}
        try:
            together = vmap(partial(functional_call, network), randomness=randomness)
            together(state, inputs.unsqueeze(0))
        except RuntimeError:
            return False
    return True


def structure(model: nn.Module) -> list[tuple[object, ...]]:
    """What ``forward`` computes with its tensors, as far as modules tell: equal only if the same.

    That is the type and the settings of every module, functions that it was given included.
    """
    return [
        (name, type(module), module.extra_repr(), _functions(module), _constants(module))
        for name, module in model.named_modules(remove_duplicate=False)
    ]


def constants(model: nn.Module) -> dict[str, dict[str, object]]:
    """The numbers, texts, lists and arrays of every module, by its name."""
    return {name: _constants(module) for name, module in model.named_modules()}


def _functions(module: nn.Module) -> dict[str, object]:
    values = vars(module).items()
    return {k: v for k, v in values if callable(v) and not isinstance(v, nn.Module)}


def _constants(module: nn.Module) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in vars(module).items():
        if name in _OF_EVERY_MODULE:
            continue
        if isinstance(value, np.ndarray):
            found[name] = value.shape, value.dtype.str, value.tobytes()
        elif isinstance(value, list | tuple | dict | set):
            found[name] = _ADDRESS.sub("", repr(value))
        elif isinstance(value, bool | int | float | str):
            found[name] = value
    return found


def negative_log_prior(
    network: nn.Module, outputs: torch.Tensor, precision: float
) -> torch.Tensor:
    """``precision / 2 |w|^2`` over the weights of Linear and Conv layers; biases are free.

    The constant of the Gaussian density is left out.
    """
    layers = [module for module in network.modules() if isinstance(module, LAYERS)]
    distinct = {id(layer.weight): layer for layer in layers}.values()  # some may share weights
    if precision == 0 or not distinct:
        return outputs.new_zeros(())
    return precision * torch.stack([half_square(layer) for layer in distinct]).sum()


def half_square(layer: nn.Module) -> torch.Tensor:
    """``|w|^2 / 2`` of a layer's weights."""
    weight = cast("torch.Tensor", layer.weight).flatten()
    # The gradient, w, in one pass; that of square().sum() makes temporaries as large as w.
    square = torch.dot(weight.detach(), weight)
    return square - 0.5 * square.detach()
