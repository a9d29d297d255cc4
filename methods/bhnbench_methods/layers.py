"""Layers that take a gain or a dropout mask from outside, and how to put them into a network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, TypeVar, cast

import torch
from torch import nn
from torch.nn import functional as F

from bhnbench.errors import ContractError, UnsupportedError

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TINY = 1e-6  # size of a unit's weights where all were zero


class GatedLayer(nn.Module):
    """A layer whose input is multiplied by the mask in ``given``, if any."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.given: torch.Tensor | None = None

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - as torch calls it
        """``layer(input * given)``."""
        outputs: torch.Tensor = self.layer(input if self.given is None else input * self.given)
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
            self.v[zero] = torch.randn_like(self.v[zero]) * _TINY

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

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - as torch calls it
        """``gain * (v input) / |v| + bias``."""
        outputs: torch.Tensor = self.layer(input)
        shape = (-1,) + (1,) * (self.v.ndim - 2)  # spatial dimensions come after the units
        if self.given is not None:
            outputs = outputs * (self.given / self.norms()).view(shape)
        return outputs if self.bias is None else outputs + self.bias.view(shape)


@dataclass(frozen=True)
class Site:
    """A Linear or Conv layer as ``forward`` meets it first."""

    name: str
    input_shape: tuple[int, ...]  # of one row
    output_shape: tuple[int, ...]
    n_units: int
    is_regular: bool = True  # a row is an example, and every call has these shapes
    n_calls: int = 1  # in one pass

    def again(self, site: Site) -> Site:
        """This site after a further call, which by itself is ``site``."""
        is_regular = self.is_regular and site == replace(self, n_calls=1)
        return replace(self, is_regular=is_regular, n_calls=self.n_calls + 1)


@dataclass(frozen=True)
class Trace:
    """What one forward pass shows of a network."""

    sites: tuple[Site, ...]  # in the order of execution
    n_activations: int  # numbers computed for one example, for bounds on memory


def trace(network: nn.Module, inputs: torch.Tensor) -> Trace:
    """Run ``network`` once on ``inputs``, leaving it as it was.

    A layer is found where the network calls it; one whose weights the network reads by itself
    stays as it is.

    Raises:
        ContractError: the network does not return a tensor, or changes its inputs.
    """
    inputs = inputs.clone()
    before = inputs._version  # torch's own count of changes in place
    sites: dict[str, Site] = {}
    sizes = [inputs[0].numel()]

    def record(
        name: str,
        module: nn.Module,
        args: tuple[torch.Tensor, ...],
        kwargs: dict[str, torch.Tensor],
        outputs: object,
    ) -> None:
        if not isinstance(outputs, torch.Tensor):
            return
        sizes.append(outputs.numel() // len(inputs))
        if isinstance(module, LAYERS):
            given, *_ = (*args, *kwargs.values())
            shapes = tuple(given.shape[1:]), tuple(outputs.shape[1:])
            site = Site(name, *shapes, len(module.weight), len(given) == len(inputs))
            sites[name] = sites[name].again(site) if name in sites else site

    with torch.no_grad(), evaluating(network), ExitStack() as hooks:
        for name, module in network.named_modules():
            handle = module.register_forward_hook(partial(record, name), with_kwargs=True)
            hooks.enter_context(handle)
        outputs = network(inputs)
    if not isinstance(outputs, torch.Tensor):
        raise ContractError(
            "the network must return one tensor of outputs, (n, n_outputs), but returned a "
            f"{type(outputs).__name__}; return the outputs alone"
        )
    if inputs._version != before:
        raise ContractError(
            "the network must leave its inputs as they are, but changes them in place, and with "
            "them the data; let its first operation make a new tensor"
        )
    return Trace(tuple(sites.values()), sum(sizes))


def trace_trained(network: nn.Module, inputs: torch.Tensor) -> Trace:
    """``trace``, but of sites only those whose weights ask for a gradient.

    A frozen layer is known: no method may make it random.
    """
    found = trace(network, inputs)
    asks = [any(w.requires_grad for w in _weights(network, site)) for site in found.sites]
    trained = (site for site, asked in zip(found.sites, asks, strict=True) if asked)
    return replace(found, sites=tuple(trained))


def trace_replaceable(network: nn.Module, inputs: torch.Tensor) -> Trace:
    """``trace_trained``, of a network whose layers can be made random one by one.

    Raises:
        UnsupportedError: they cannot: there is none, all are frozen, or two share weights.
    """
    found = trace_trained(network, inputs)
    if not found.sites and trace(network, inputs).sites:
        raise UnsupportedError(
            "it needs a Linear or Conv layer to train, but the weights of all are frozen; "
            "call requires_grad_(True) on one"
        )
    if not found.sites:
        raise UnsupportedError("it needs a Linear or Conv layer, but the network has none")
    owners: dict[nn.Parameter, str] = {}
    for site in found.sites:
        for weight in _weights(network, site):
            owner = owners.setdefault(weight, site.name)
            if owner != site.name:
                raise UnsupportedError(
                    f"layers must have weights of their own, but {owner!r} and {site.name!r} "
                    "share theirs; call one layer twice, or copy the weights"
                )
    return found


def check_plain(network: nn.Module, names: Iterable[str]) -> None:
    """The weights of these layers can be set, have a prior, or be put out of use.

    Raises:
        UnsupportedError: they cannot, as they are no parameters but made of others in every call.
    """
    for name in names:
        if not isinstance(network.get_submodule(name).weight, nn.Parameter):
            raise UnsupportedError(
                f"weights must be parameters, but those of layer {name!r} are computed from "
                "others (weight_norm, spectral_norm, ...); take that off the layer"
            )


def _weights(network: nn.Module, site: Site) -> list[nn.Parameter]:
    """A layer's weight, or the parameters that a reparametrised weight is made of."""
    layer = network.get_submodule(site.name)
    return [parameter for name, parameter in layer.named_parameters() if name != "bias"]


def check_regular(sites: Iterable[Site]) -> None:
    """Noise can be drawn for every example's numbers at these layers.

    Raises:
        UnsupportedError: it cannot.
    """
    for site in sites:
        if not site.is_regular:
            raise UnsupportedError(
                f"layer {site.name!r} must see one row an example, of the same shape in all its "
                "calls, but does not; move reshaping out of its way, or copy the layer"
            )


class WrappedLayer(Protocol):
    """What takes the place of a layer; ``given`` is its random part, or None."""

    given: Any


Wrapped = TypeVar("Wrapped", bound=nn.Module)


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


def apply_layer(
    layer: nn.Module, inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """A Linear or Conv layer with these parameters instead of its own."""
    if isinstance(layer, nn.Linear):
        return F.linear(inputs, weight, bias)
    conv = cast("nn.Conv2d", layer)  # or another dimension
    outputs: torch.Tensor = conv._conv_forward(inputs, weight, bias)  # it knows its padding
    return outputs


def run(
    network: nn.Module,
    layers: Sequence[WrappedLayer],
    given: Sequence[object],
    inputs: torch.Tensor,
) -> torch.Tensor:
    """Outputs of ``network`` with its wrapped ``layers`` each given its random part."""
    for layer, value in zip(layers, given, strict=True):
        layer.given = value
    try:
        outputs: torch.Tensor = network(inputs)
    except AttributeError as error:
        if any(error.obj is layer for layer in layers):
            raise UnsupportedError(
                f"the network must call its layers, but reads {error.name!r} of one that the "
                "method replaces; write layer(x) (of torch's transformers: call "
                "torch.backends.mha.set_fastpath_enabled(False)), or use a method that replaces "
                "no layers"
            ) from error
        raise
    finally:
        for layer in layers:
            layer.given = None
    return outputs


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
