"""R models of one architecture as one computation: their parameters are rows of one tensor."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.func import functional_call, vmap

from bhnbench_methods.models import Forward, Model

_RANDOM = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.RReLU)

LogProb = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Losses = tuple[torch.Tensor, torch.Tensor]  # mean nll and penalty in nats, one a replica


class Replicas:
    """The trained parameters of R models in one tensor, ``flat``: ``(R, n_params)``.

    The models' own parameters and buffers are views of the stacked ones, so every model is up to
    date at any time. One tensor keeps the optimiser, the clipping and the checkpoint at a handful
    of operations, whatever the number of layers.
    """

    def __init__(self, models: Sequence[Model], log_prob: LogProb) -> None:
        self.models = models
        self.log_prob = log_prob
        self.flat = torch.stack([nn.utils.parameters_to_vector(_trained(m)) for m in models])
        self.flat = self.flat.detach()
        self.grad = torch.zeros_like(self.flat)
        self.params = self._stack_params()
        self.constants = self._stack_constants()
        self.vmapped = len(models) > 1  # one model is faster without
        self.leaves = list(self.params.values()) if self.vmapped else _trained(models[0])

    def _stack_params(self) -> dict[str, torch.Tensor]:
        names = [name for name, p in self.models[0].named_parameters() if p.requires_grad]
        columns = list(zip(*map(_trained, self.models), strict=True))
        pieces = self.flat.split_with_sizes([column[0].numel() for column in columns], dim=1)
        params = {}
        for name, column, piece in zip(names, columns, pieces, strict=True):
            stacked = piece.view(-1, *column[0].shape)
            _point_to(column, stacked)
            params[name] = stacked.detach().requires_grad_()
        return params

    def _stack_constants(self) -> dict[str, torch.Tensor]:
        columns = [_constants(model) for model in self.models]
        stacked = {name: torch.stack([c[name] for c in columns]) for name in columns[0]}
        for name, views in stacked.items():
            _point_to([column[name] for column in columns], views)
        return stacked

    def backward(
        self, inputs: torch.Tensor, targets: torch.Tensor, noise: torch.Tensor, weight: float
    ) -> Losses:
        """Put the gradient of ``nll + weight * penalty`` into ``grad``.

        Args:
            inputs: one minibatch a replica, ``(R, n, *input_shape)``.
            targets: ``(R, n, ...)``.
            noise: one step's noise a replica, ``(R, ...)``.
            weight: of the penalty.

        Returns:
            Mean nll and penalty of every replica, ``(R,)`` each, in nats.
        """
        if self.vmapped:
            args = (self.params, self.constants, inputs, targets, noise)
            nll, penalty = vmap(self._losses_of_tensors, randomness="different")(*args)
        else:
            one = self._losses(self.models[0](inputs[0], noise[0]), targets[0])
            nll, penalty = (loss.unsqueeze(0) for loss in one)
        loss = (nll + weight * penalty).sum()
        pieces = torch.autograd.grad(loss, self.leaves, materialize_grads=True)
        n_replicas = len(self.models)
        rows = [piece.reshape(n_replicas, -1) for piece in pieces]
        torch.cat(rows, dim=1, out=self.grad)
        return nll.detach(), penalty.detach()

    def _losses(self, forward: Forward, targets: torch.Tensor) -> Losses:
        outputs, penalty = forward
        return -self.log_prob(outputs, targets).mean(), penalty

    def _losses_of_tensors(
        self,
        params: dict[str, torch.Tensor],
        constants: dict[str, torch.Tensor],
        inputs: torch.Tensor,
        targets: torch.Tensor,
        noise: torch.Tensor,
    ) -> Losses:
        forward = functional_call(self.models[0], (params, constants), (inputs, noise))
        return self._losses(forward, targets)

    def state(self) -> list[torch.Tensor]:
        """Every stacked tensor, replicas first; writing into them changes the models."""
        return [self.flat, *self.constants.values()]

    def release(self) -> None:
        """Give every model memory of its own, in eval mode and without gradients."""
        for model in self.models:
            for tensor in [*model.parameters(), *model.buffers()]:
                tensor.data = tensor.data.clone()
            model.eval().requires_grad_(False)


def has_random_layers(network: nn.Module) -> bool:
    """Whether the user's network itself draws random numbers in training."""
    return any(isinstance(module, _RANDOM) for module in network.modules())


def _trained(model: nn.Module) -> list[torch.Tensor]:
    return [p for p in model.parameters() if p.requires_grad]


def _constants(model: nn.Module) -> dict[str, torch.Tensor]:
    frozen = {name: p for name, p in model.named_parameters() if not p.requires_grad}
    return frozen | dict(model.named_buffers())


def _point_to(tensors: Sequence[torch.Tensor], views: torch.Tensor) -> None:
    for tensor, view in zip(tensors, views, strict=True):
        tensor.data = view
