"""R models of one architecture as one computation: their parameters are rows of one tensor."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.func import functional_call, vmap

from bhnbench_methods.layers import evaluating
from bhnbench_methods.models import Forward, Model

MAX_VMAPPED = 2**15  # numbers in a parameter; on a CPU larger ones are faster one by one
_MAX_SAMPLED = 16  # replicas that are sampled together; the memory bound is for each of them

LogProb = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Losses = tuple[torch.Tensor, torch.Tensor]  # mean nll and penalty in nats, one a replica


class Replicas:
    """The trained parameters of R models in one tensor, ``flat``: ``(R, n_params)``.

    The models' own parameters and buffers are views of the stacked ones, so every model is up to
    date at any time. One tensor keeps the optimiser, the clipping and the checkpoint at a handful
    of operations, whatever the number of layers. Models that are not stackable, as ``vmap``
    cannot run their network, are run one by one.
    """

    def __init__(
        self, models: Sequence[Model], log_prob: LogProb, *, is_stackable: bool = True
    ) -> None:
        self.models = models
        self.log_prob = log_prob
        self.flat = torch.stack([nn.utils.parameters_to_vector(_trained(m)) for m in models])
        self.flat = self.flat.detach()
        self.grad = torch.zeros_like(self.flat)
        self.params = self._stack_params()
        self.constants = self._stack_constants()
        self.vmapped = len(models) > 1 and is_stackable and self._is_faster_together()
        self.leaves = (
            list(self.params.values())
            if self.vmapped
            else [parameter for model in models for parameter in _trained(model)]
        )

    def _is_faster_together(self) -> bool:
        """Whether fewer calls save more time than larger operations cost.

        Both grow with the number of layers, so that it is the largest tensor that counts.
        """
        largest = max((stacked[0].numel() for stacked in self.params.values()), default=0)
        return self.flat.is_cuda or largest <= MAX_VMAPPED

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
        if not self.vmapped:
            return self._backward_in_turn(inputs, targets, noise, weight)
        nll, penalty = self._stacked_losses(inputs, targets, noise)
        pieces = self._gradients(nll + weight * penalty, self.leaves)
        self._flatten(pieces, out=self.grad)
        return nll.detach(), penalty.detach()

    def _backward_in_turn(
        self, inputs: torch.Tensor, targets: torch.Tensor, noise: torch.Tensor, weight: float
    ) -> Losses:
        """Model by model, so that one graph at a time is in memory."""
        losses, n_leaves = [], len(self.leaves) // len(self.models)
        batches = zip(self.models, inputs, targets, noise, strict=True)
        for i, (model, x, y, z) in enumerate(batches):
            nll, penalty = self._losses(model(x, z), y)
            leaves = self.leaves[i * n_leaves : (i + 1) * n_leaves]
            pieces = self._gradients(nll + weight * penalty, leaves)
            torch.cat([piece.reshape(-1) for piece in pieces], out=self.grad[i])
            losses.append((nll.detach(), penalty.detach()))
        nlls, penalties = zip(*losses, strict=True)
        return torch.stack(nlls), torch.stack(penalties)

    def adversarial_backward(
        self,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        noise: torch.Tensor,
        weight: float,
        step: torch.Tensor,
    ) -> Losses:
        """The same for ``nll + nll' + weight * penalty``: nll' is that of adversarial inputs.

        They are ``inputs + step * sign(d nll / d inputs)``, constant in the parameters (fast
        gradient sign, Goodfellow et al., 2015).
        """
        inputs = inputs.detach().requires_grad_()
        nll, penalty = self._stacked_losses(inputs, targets, noise)
        *pieces, slope = self._gradients(nll + weight * penalty, [*self.leaves, inputs])
        self._flatten(pieces, out=self.grad)
        shifted = (inputs + step * slope.sign()).detach()
        again, _ = self._stacked_losses(shifted, targets, noise)
        self.grad.add_(self._flatten(self._gradients(again, self.leaves)))
        return nll.detach(), penalty.detach()

    def sample(self, inputs: torch.Tensor, n_samples: int, seed: int) -> torch.Tensor:
        """Posterior samples of every replica in eval mode, ``(R, n_samples, n, n_outputs)``.

        Args:
            inputs: ``(R, n, *input_shape)``.
            n_samples: of each.
            seed: of the random numbers, which are the same for all replicas.
        """
        if not self.vmapped:
            pairs = zip(self.models, inputs, strict=True)
            return torch.stack([_sample(model, x, n_samples, seed) for model, x in pairs])

        def run(state: dict[str, torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
            rng = torch.Generator().manual_seed(seed)
            outputs: torch.Tensor = functional_call(sampler, state, (inputs, n_samples, rng))
            return outputs

        sampler = _Sampler(self.models[0])
        state = {f"model.{name}": t for name, t in (self.params | self.constants).items()}
        with evaluating(self.models[0]):
            together = vmap(run, randomness="same", chunk_size=_MAX_SAMPLED)
            outputs: torch.Tensor = together(state, inputs)
        return outputs

    def _stacked_losses(
        self, inputs: torch.Tensor, targets: torch.Tensor, noise: torch.Tensor
    ) -> Losses:
        if self.vmapped:
            args = (self.params, self.constants, inputs, targets, noise)
            nll, penalty = vmap(self._losses_of_tensors, randomness="different")(*args)
            return nll, penalty
        batches = zip(self.models, inputs, targets, noise, strict=True)
        losses = [self._losses(model(x, z), y) for model, x, y, z in batches]
        nlls, penalties = zip(*losses, strict=True)
        return torch.stack(nlls), torch.stack(penalties)

    def _gradients(
        self, losses: torch.Tensor, leaves: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(losses.sum(), leaves, materialize_grads=True)

    def _flatten(
        self, pieces: Sequence[torch.Tensor], out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Gradients of the leaves in the shape of ``flat``."""
        n_replicas = len(self.models)
        if self.vmapped:
            return torch.cat([piece.reshape(n_replicas, -1) for piece in pieces], dim=1, out=out)
        out = None if out is None else out.view(-1)
        return torch.cat([piece.reshape(-1) for piece in pieces], out=out).view(n_replicas, -1)

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


class _Sampler(nn.Module):
    """Turns ``sample`` into the ``forward`` that functional calls need."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: torch.Tensor, n_samples: int, rng: torch.Generator) -> torch.Tensor:
        """Posterior samples."""
        return self.model.sample(inputs, n_samples, rng=rng)


def _sample(model: Model, inputs: torch.Tensor, n_samples: int, seed: int) -> torch.Tensor:
    with evaluating(model):
        return model.sample(inputs, n_samples, rng=torch.Generator().manual_seed(seed))


def _trained(model: nn.Module) -> list[torch.Tensor]:
    return [p for p in model.parameters() if p.requires_grad]


def _constants(model: nn.Module) -> dict[str, torch.Tensor]:
    frozen = {name: p for name, p in model.named_parameters() if not p.requires_grad}
    return frozen | dict(model.named_buffers())


def _point_to(tensors: Sequence[torch.Tensor], views: torch.Tensor) -> None:
    for tensor, view in zip(tensors, views, strict=True):
        tensor.data = view
