"""What a hypernetwork generates: the gains of a network's units, or all its parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import prod

import torch
from torch import nn
from torch.func import functional_call, vmap
from torch.nn.modules.batchnorm import _BatchNorm

from bhnbench.errors import UnsupportedError
from bhnbench_methods.layers import WeightNormLayer, run, trace, trace_replaceable, wrap

MAX_WEIGHTS = 10_000  # the first and last matrix of every block of a flow grow with this number


class Target(nn.Module, ABC):
    """A network some numbers of which come from outside: ``n_dims`` of them, at first ``start``.

    What is not generated remains a trained parameter of ``network``.
    """

    start: torch.Tensor

    def __init__(self, network: nn.Module, start: torch.Tensor, n_activations: int) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("start", start)
        self.n_activations = n_activations  # numbers computed for one example

    @property
    def n_dims(self) -> int:
        """How many numbers are generated."""
        return len(self.start)

    @abstractmethod
    def run(self, inputs: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Outputs ``(n, n_outputs)`` of the network with generated ``values``, ``(n_dims,)``."""

    def run_many(self, inputs: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Outputs ``(n_draws, n, n_outputs)`` with ``values``, ``(n_draws, n_dims)``."""
        if any(isinstance(module, _BatchNorm) for module in self.network.modules()):
            # Every run moves the running statistics, which vmap cannot share between draws.
            return torch.stack([self.run(inputs, value) for value in values])
        return vmap(self.run, in_dims=(None, 0), randomness="different")(inputs, values)


class Gains(Target):
    """The weight-norm gain of every unit of the Linear and Conv layers that are not frozen.

    Directions, biases and all else of the network are trained.

    Raises:
        UnsupportedError: there is no such layer, or two share their weights.
    """

    def __init__(self, network: nn.Module, inputs: torch.Tensor) -> None:
        found = trace_replaceable(network, inputs)
        network, layers = wrap(network, found.sites, WeightNormLayer)
        start = torch.cat([layer.norms().detach() for layer in layers])
        super().__init__(network, start, found.n_activations)
        self.layers = layers
        self.sizes = [site.n_units for site in found.sites]

    def run(self, inputs: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Outputs under these gains, in the order of execution of their layers."""
        return run(self.network, self.layers, values.split_with_sizes(self.sizes), inputs)


class Weights(Target):
    """Every parameter of the network that asks for a gradient; then nothing is left to train.

    Raises:
        UnsupportedError: there are none, or too many.
    """

    def __init__(self, network: nn.Module, inputs: torch.Tensor) -> None:
        n_activations = trace(network, inputs).n_activations
        generated = {name: p for name, p in network.named_parameters() if p.requires_grad}
        _check_number(sum(p.numel() for p in generated.values()))
        start = torch.cat([p.detach().flatten() for p in generated.values()])
        super().__init__(network.requires_grad_(False), start, n_activations)
        self.shapes = {name: p.shape for name, p in generated.items()}
        self.sizes = [prod(shape) for shape in self.shapes.values()]

    def run(self, inputs: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Outputs under these parameters, in the order of ``named_parameters``."""
        pieces = zip(self.shapes.items(), values.split_with_sizes(self.sizes), strict=True)
        params = {name: piece.view(shape) for (name, shape), piece in pieces}
        outputs: torch.Tensor = functional_call(self.network, params, (inputs,))
        return outputs


def _check_number(n_dims: int) -> None:
    if n_dims == 0:
        raise UnsupportedError("it needs a parameter to learn, but the network has none")
    if n_dims > MAX_WEIGHTS:
        raise UnsupportedError(
            f"target weights needs a network of at most {MAX_WEIGHTS} parameters, "
            f"but it has {n_dims}; use target gains"
        )


TARGETS: dict[str, type[Gains] | type[Weights]] = {"gains": Gains, "weights": Weights}
