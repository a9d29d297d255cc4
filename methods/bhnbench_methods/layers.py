"""Layers that take a gain or a dropout mask from outside, and how to put them into a network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
from torch import nn

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_MIN_SD = 1e-6  # of a unit's pre-activation, below which it counts as constant


class GatedLayer(nn.Module):
    """A layer whose input is multiplied by the mask in ``given``, if any."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.given: torch.Tensor | None = None

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """``layer(inputs * given)``."""
        outputs: torch.Tensor = self.layer(inputs if self.given is None else inputs * self.given)
        return outputs


class WeightNormLayer(nn.Module):
    """Weight normalisation (Salimans and Kingma, 2016): ``w_j = gain_j v_j / |v_j|``.

    The gain scales the unit's output instead of its weights: then many gains share one product
    of inputs and ``v``. The gains are in ``given``; without them, ``gain_j = |v_j|`` and the
    layer is the plain one.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        bias = layer.bias
        self.bias = bias if isinstance(bias, nn.Parameter) else None
        layer.register_parameter("bias", None)
        self.layer = layer
        self.given: torch.Tensor | None = None
        with torch.no_grad():  # a unit of zero weights has no direction: give it one
            zero = (self.v.flatten(1) == 0).all(1)
            self.v[zero] = torch.randn_like(self.v[zero]) * _MIN_SD

    @property
    def v(self) -> torch.Tensor:
        """Directions, ``(n_units, ...)``."""
        return cast("torch.Tensor", self.layer.weight)

    def norms(self) -> torch.Tensor:
        """``|v_j|``, ``(n_units,)``."""
        v = self.v.flatten(1)
        with torch.no_grad():
            unit: torch.Tensor = v / torch.linalg.vector_norm(v, dim=1, keepdim=True)
        # Equal to the norm, and so is its gradient, unit; but the backward pass of the norm
        # itself makes several temporaries as large as v and takes twice as long.
        return (unit * v).sum(1)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """``gain * (v inputs) / |v| + bias``."""
        outputs: torch.Tensor = self.layer(inputs)
        shape = (-1,) + (1,) * (self.v.ndim - 2)  # spatial dimensions come after the units
        if self.given is not None:
            outputs = outputs * (self.given / self.norms()).view(shape)
        return outputs if self.bias is None else outputs + self.bias.view(shape)


@dataclass(frozen=True)
class Site:
    """A Linear or Conv layer as ``forward`` meets it."""

    name: str
    input_shape: tuple[int, ...]  # of one example
    n_units: int


@dataclass(frozen=True)
class Trace:
    """What one forward pass shows of a network."""

    sites: tuple[Site, ...]  # in the order of execution
    n_activations: int  # numbers computed for one example, for bounds on memory


def trace(network: nn.Module, inputs: torch.Tensor) -> Trace:
    """Run ``network`` once on ``inputs``, leaving it as it was."""
    sites: dict[str, Site] = {}
    sizes: list[int] = [inputs[0].numel()]

    def record(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...], object], None]:
        def hook(module: nn.Module, args: tuple[torch.Tensor, ...], outputs: object) -> None:
            if isinstance(outputs, torch.Tensor):
                sizes.append(outputs.numel() // len(inputs))
            if isinstance(module, LAYERS):
                n_units = module.weight.shape[0]
                sites.setdefault(name, Site(name, tuple(args[0].shape[1:]), n_units))

        return hook

    with torch.no_grad(), evaluating(network), ExitStack() as hooks:
        for name, module in network.named_modules():
            hooks.enter_context(module.register_forward_hook(record(name)))
        network(inputs)
    return Trace(tuple(sites.values()), sum(sizes))


Wrapped = TypeVar("Wrapped", GatedLayer, WeightNormLayer)


def wrap(
    network: nn.Module, sites: Iterable[Site], wrapper: Callable[[nn.Module], Wrapped]
) -> tuple[nn.Module, list[Wrapped]]:
    """Replace the layers at ``sites`` by wrapped ones; the network, and the wrapped layers."""
    wrapped = []
    for layer in [network.get_submodule(site.name) for site in sites]:
        places = _places(network, layer)  # before the wrapper, which holds the layer too
        wrapped.append(wrapper(layer))
        if layer is network:
            return wrapped[0], wrapped
        for parent, name in places:
            setattr(parent, name, wrapped[-1])
    return network, wrapped


def _places(network: nn.Module, layer: nn.Module) -> list[tuple[nn.Module, str]]:
    """Every (parent, attribute) that holds ``layer``: a network may use one layer twice."""
    names = [name for name, m in network.named_modules(remove_duplicate=False) if m is layer]
    paths = [name.rpartition(".") for name in names]
    return [(network.get_submodule(parent), name) for parent, _, name in paths]


def run(
    network: nn.Module,
    layers: Sequence[GatedLayer | WeightNormLayer],
    given: Sequence[torch.Tensor],
    inputs: torch.Tensor,
) -> torch.Tensor:
    """Outputs of ``network`` with its wrapped ``layers`` given these masks or gains."""
    for layer, value in zip(layers, given, strict=True):
        layer.given = value
    try:
        outputs: torch.Tensor = network(inputs)
    finally:
        for layer in layers:
            layer.given = None
    return outputs


def standardise(
    network: nn.Module, layers: Sequence[WeightNormLayer], inputs: torch.Tensor
) -> None:
    """Rescale ``v`` and shift the biases so that pre-activations on ``inputs`` are standardised.

    Data-dependent initialisation (Salimans and Kingma, 2016, section 3), in one pass: each layer
    sees inputs that the layers before it have already standardised. Units that do not vary are
    left as they are.
    """

    def hook(
        layer: WeightNormLayer, args: tuple[torch.Tensor, ...], outputs: torch.Tensor
    ) -> torch.Tensor:
        channel = outputs.ndim - layer.v.ndim + 1
        others = [dim for dim in range(outputs.ndim) if dim != channel]
        sd, mean = torch.std_mean(outputs, dim=others, correction=0)
        sd = torch.where(sd > _MIN_SD, sd, torch.ones_like(sd))
        layer.v.div_(sd.view(-1, *(1,) * (layer.v.ndim - 1)))
        if layer.bias is not None:
            layer.bias.sub_(mean).div_(sd)
        return layer.forward(*args)

    with torch.no_grad(), evaluating(network), ExitStack() as hooks:
        for layer in layers:
            hooks.enter_context(layer.register_forward_hook(hook))
        network(inputs)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Eval mode within the block; then every module gets its own mode back."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
