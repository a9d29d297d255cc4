"""Networks kept on the way of one fit, or from several: an equal mixture, sampled in one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Self

import torch
from torch.func import functional_call

from bhnbench.contract import Problem
from bhnbench_methods.layers import LAYERS, check_plain
from bhnbench_methods.models import Forward, PointModel
from bhnbench_methods.predictive import repeat_outputs, sample_outputs

States = Mapping[str, torch.Tensor]  # the parameters and buffers of S networks, S first
Steps = Callable[[int], Sequence[int]]  # of so many steps, those after which to keep a sample


class SampledModel(PointModel):
    """A network whose fit keeps its state at several steps: the predictive is their mixture."""

    kept: States | None = None  # once trained

    @property
    def is_random(self) -> bool:
        """Whether there is more than one network."""
        return self.kept is not None and n_states(self.kept) > 1

    def sample(
        self, inputs: torch.Tensor, n_samples: int, *, rng: torch.Generator
    ) -> torch.Tensor:
        """Sample ``i`` is network ``i mod n_kept``; of fewer samples, evenly spaced ones."""
        if self.kept is None:
            return super().sample(inputs, n_samples, rng=rng)
        n_kept = n_states(self.kept)
        n_used = min(n_samples, n_kept)
        rows = [(i + 1) * n_kept // n_used - 1 for i in range(n_used)]
        return sample_states(self, self.kept, rows, inputs, n_samples)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        """What torch's ``to``, ``double`` and the like do to every tensor of a module."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch gives it no types
        if self.kept is not None:
            self.kept = {name: fn(stacked) for name, stacked in self.kept.items()}
        return self


class ChainModel(SampledModel):
    """A network with a proper prior on all that is trained, for sampling its posterior.

    A weight of a Linear or Conv layer has the prior ``N(0, 1 / (precision n_inputs))``, where
    ``n_inputs`` are those of one unit; all else (biases, bare parameters) ``N(0, 1 /
    precision)``. So the variance of a unit's output does not grow with the width of the network.

    Raises:
        UnsupportedError: a layer's weights are no parameters, so that a prior cannot be theirs.
    """

    def __init__(self, problem: Problem, prior_precision: float) -> None:
        super().__init__(problem, 0.0)
        layers = {n: m for n, m in self.network.named_modules() if isinstance(m, LAYERS)}
        check_plain(self.network, layers)
        n_inputs = {id(m.weight): m.weight[0].numel() for m in layers.values()}
        self.precisions = {
            name: prior_precision * n_inputs.get(id(parameter), 1)
            for name, parameter in self.network.named_parameters()
            if parameter.requires_grad
        }

    def forward(self, inputs: torch.Tensor, noise: torch.Tensor) -> Forward:
        """Outputs and negative log prior, up to its constant."""
        parameters = dict(self.network.named_parameters())
        squares = [
            precision * parameters[name].square().sum()
            for name, precision in self.precisions.items()
        ]
        return self.network(inputs), 0.5 * torch.stack(squares).sum()


class KeptStates:
    """What a fit keeps of each of its models, in memory that is taken once."""

    def __init__(self, models: Sequence[SampledModel], n_kept: int) -> None:
        self.n = 0
        self.models = models
        self.present = [_state(model, frozen=False) for model in models]
        self.kept = [
            {name: tensor.new_empty(n_kept, *tensor.shape) for name, tensor in state.items()}
            for state in self.present
        ]

    def keep(self) -> None:
        """Copy the present state of every model."""
        for present, kept in zip(self.present, self.kept, strict=True):
            for name, tensor in present.items():
                kept[name][self.n].copy_(tensor)
        self.n += 1

    def hand_over(self) -> None:
        """Give every model what was kept of it."""
        for model, kept in zip(self.models, self.kept, strict=True):
            model.kept = kept


def stack_states(models: Sequence[PointModel]) -> States:
    """The states of several models as those of one mixture."""
    rows = [_state(model) for model in models]
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def n_states(states: States) -> int:
    """How many networks."""
    return len(next(iter(states.values())))


def sample_states(
    model: PointModel,
    states: States,
    rows: Sequence[int],
    inputs: torch.Tensor,
    n_samples: int,
) -> torch.Tensor:
    """Outputs ``(n_samples, n, n_outputs)`` of the networks at ``rows``, in turn."""
    network = model.network
    if len(rows) == 1:  # faster, and exactly the network itself, without vmap
        state = {name: stacked[rows[0]] for name, stacked in states.items()}
        run_one = partial(functional_call, network, state)
        return repeat_outputs(run_one, inputs, n_samples, n_activations=model.n_activations)
    start = 0

    def draw(n: int) -> dict[str, torch.Tensor]:
        nonlocal start
        block = rows[start : start + n]
        start += n
        return {name: stacked[block] for name, stacked in states.items()}

    def run(inputs: torch.Tensor, state: dict[str, torch.Tensor]) -> torch.Tensor:
        outputs: torch.Tensor = functional_call(network, state, (inputs,))
        return outputs

    outputs = sample_outputs(
        run,
        inputs,
        draw,
        len(rows),
        n_random=sum(stacked[0].numel() for stacked in states.values()),
        n_activations=model.n_activations,
    )
    if n_samples == len(rows):
        return outputs
    return outputs[torch.arange(n_samples, device=outputs.device) % len(rows)]


def evenly(n_steps: int, n: int, *, start: float = 0.0) -> list[int]:
    """Up to ``n`` steps of ``n_steps``, after the fraction ``start``; the last is among them."""
    first = int(start * n_steps)
    later = n_steps - first
    return sorted({first + -(-i * later // n) for i in range(1, n + 1)})


def _state(model: PointModel, *, frozen: bool = True) -> dict[str, torch.Tensor]:
    """Parameters, ``frozen`` ones too, and buffers; the tensors stay the network's own."""
    parameters = {
        name: parameter.detach()
        for name, parameter in model.network.named_parameters()
        if frozen or parameter.requires_grad
    }
    return parameters | dict(model.network.named_buffers())
