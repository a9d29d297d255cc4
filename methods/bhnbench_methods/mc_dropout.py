"""MC dropout: one network, dropout kept on when predicting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch

from bhnbench.contract import Predictive, Problem, Report
from bhnbench.space import Float, hyperparameter
from bhnbench_methods.fitting import TrainedMethod, fit_models
from bhnbench_methods.layers import GatedLayer, run, trace, wrap
from bhnbench_methods.models import (
    Forward,
    Model,
    find_layers,
    negative_log_prior,
    new_network,
)
from bhnbench_methods.predictive import sample_outputs
from bhnbench_methods.training import Recipe


@dataclass(frozen=True, kw_only=True)
class MCDropout(TrainedMethod):
    """Dropout on hidden activations, in training and in prediction: a variational posterior.

    Use it for cheap uncertainty on top of any network with at least two Linear or Conv layers.
    Each of them but the first gets the input ``h * z / (1 - rate)`` with ``z ~ Bernoulli(1 -
    rate)``, element by element; the network's own inputs are never dropped. ``weight_decay`` is
    the precision of the Gaussian prior on the weights.

    In training every example has a mask of its own. A posterior sample is one mask, the same for
    all inputs ("consistent" dropout, Kirsch et al., 2019): a sample is then a function, as it is
    for the other methods, and the predictive of a single input is unchanged.

    Source: Gal and Ghahramani (2016), "Dropout as a Bayesian approximation", equations 3-6,
    https://arxiv.org/abs/1506.02142.
    """

    rate: float = hyperparameter(
        0.5,
        "probability that a hidden activation is dropped",
        valid=Float(0, 0.99),
        search=Float(0.05, 0.6),
    )
    weight_decay: float = hyperparameter(
        0.0,
        "precision of the Gaussian prior on the weights",
        valid=Float(0, 1e6),
    )

    def fit_many(
        self,
        problems: Sequence[Problem],
        *,
        rngs: Sequence[torch.Generator],
        reports: Sequence[Report],
        warm_starts: Sequence[Predictive | None],
    ) -> list[Predictive]:
        """Train the networks of all replicas as one computation."""
        models = fit_models(
            lambda problem: _DropoutModel(problem, self.rate, self.weight_decay),
            problems,
            rngs=rngs,
            reports=reports,
            warm_starts=[[start] for start in warm_starts],
            recipe=Recipe(
                learning_rate=self.learning_rate, lr_decay=self.lr_decay, n_validation_samples=20
            ),
        )
        return [members[0] for members in models]

    def supports(self, problem: Problem) -> str | None:
        """It needs a hidden layer."""
        n_layers = len(find_layers(problem))
        if n_layers < 2:
            return f"it needs at least two Linear or Conv layers, but the network has {n_layers}"
        return None


class _DropoutModel(Model):
    def __init__(self, problem: Problem, rate: float, weight_decay: float) -> None:
        super().__init__()
        network = new_network(problem)
        found = trace(network, problem.train.inputs[:2])
        hidden = found.sites[1:]
        self.network, self.gates = wrap(network, hidden, GatedLayer)
        self.shapes = [site.input_shape for site in hidden]
        self.n_gates = sum(prod(shape) for shape in self.shapes)
        self.n_activations = found.n_activations
        self.rate, self.weight_decay = rate, weight_decay
        self.dtype = next(network.parameters()).dtype  # inputs may be integers

    def draw_noise(self, inputs: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        """Which activations each example keeps, ``(n, n_gates)``."""
        masks = inputs.new_empty(len(inputs), self.n_gates, dtype=self.dtype)
        return masks.bernoulli_(1 - self.rate, generator=rng)

    def forward(self, inputs: torch.Tensor, noise: torch.Tensor) -> Forward:
        """Outputs under one mask an example, and the KL up to a constant (Gal, equation 6).

        A gated layer's mask multiplies ``M = W / (1 - rate)``, and its KL is ``(1 - rate)``
        times the negative log prior of ``M``: the one of ``W`` over ``1 - rate``.
        """
        outputs = self._run(inputs, noise)
        penalty = negative_log_prior(self.network, outputs, self.weight_decay)
        more = self.weight_decay * self.rate / (1 - self.rate)  # 1 / (1 - p) = 1 + p / (1 - p)
        for gate in self.gates:
            penalty = penalty + negative_log_prior(gate, outputs, more)
        return outputs, penalty

    def sample(
        self, inputs: torch.Tensor, n_samples: int, *, rng: torch.Generator
    ) -> torch.Tensor:
        """Outputs under one mask a sample; more samples begin with the same masks."""
        masks = torch.empty(n_samples, self.n_gates, dtype=self.dtype)
        for mask in masks:
            mask.bernoulli_(1 - self.rate, generator=rng)
        masks = masks.to(inputs.device)
        return sample_outputs(self._run, inputs, masks, self.n_activations)

    def _run(self, inputs: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Outputs given masks ``(n, n_gates)``, or ``(n_gates,)`` for all examples."""
        sizes = [prod(shape) for shape in self.shapes]
        scaled = (masks / (1 - self.rate)).split_with_sizes(sizes, dim=-1)
        given = [m.view(*m.shape[:-1], *s) for m, s in zip(scaled, self.shapes, strict=True)]
        return run(self.network, self.gates, given, inputs)
