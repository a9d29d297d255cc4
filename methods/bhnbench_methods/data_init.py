"""Data-dependent initialisation: every layer's outputs standardised on some training inputs."""

from __future__ import annotations

from contextlib import ExitStack
from typing import cast

import torch
from torch import nn

from bhnbench_methods.layers import check_plain, evaluating, trace_trained

_MIN_SD = 1e-6  # of a unit's pre-activation, below which it counts as constant


def standardise(network: nn.Module, inputs: torch.Tensor) -> None:
    """Rescale Linear and Conv layers so that their outputs on ``inputs`` are standardised.

    Data-dependent initialisation (Salimans and Kingma, 2016, section 3), in one pass: each layer
    sees inputs that the layers before it have already standardised. Units that do not vary,
    frozen layers and frozen biases are left as they are.

    Raises:
        UnsupportedError: a layer's weights cannot be set.
    """

    def hook(
        layer: nn.Module,
        args: tuple[torch.Tensor, ...],
        kwargs: dict[str, torch.Tensor],
        outputs: torch.Tensor,
    ) -> torch.Tensor:
        weight, bias = cast("torch.Tensor", layer.weight), layer.bias
        channel = outputs.ndim - weight.ndim + 1
        others = [dim for dim in range(outputs.ndim) if dim != channel]
        sd, mean = torch.std_mean(outputs, dim=others, correction=0)
        sd = torch.where(sd > _MIN_SD, sd, torch.ones_like(sd))
        weight.div_(sd.view(-1, *(1,) * (weight.ndim - 1)))
        if isinstance(bias, torch.Tensor) and bias.requires_grad:
            bias.sub_(mean).div_(sd)
        standardised: torch.Tensor = layer.forward(*args, **kwargs)
        return standardised

    sites = trace_trained(network, inputs).sites
    check_plain(network, [site.name for site in sites])
    with torch.no_grad(), evaluating(network), ExitStack() as hooks:
        for site in sites:
            layer = network.get_submodule(site.name)
            hooks.enter_context(layer.register_forward_hook(hook, with_kwargs=True))
        network(inputs)
