"""Deep ensemble: several networks trained apart, an equal mixture of their predictions."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch

from bhnbench.contract import Predictive, Problem
from bhnbench.errors import ContractError
from bhnbench.space import Float, Int, hyperparameter
from bhnbench_methods.fitting import TrainedMethod
from bhnbench_methods.kept_samples import States, n_states, sample_states, stack_states
from bhnbench_methods.models import Model, PointModel
from bhnbench_methods.training import Recipe


@dataclass(frozen=True, kw_only=True)
class DeepEnsemble(TrainedMethod):
    """Networks that differ in initialisation and order of the data, trained as one computation.

    Use it as the strong and simple reference for uncertainty, at ``n_members`` times the cost of
    one network (less for small ones), and twice that with adversarial training. Every member
    sees all data (no bagging) and keeps its own best epoch; the prediction is the equal mixture
    (section 2.4 of the paper)

        p(y | x) = 1/M sum_m p(y | x, w_m)

    Posterior sample ``i`` is member ``i mod n_members``, so that the samples are exactly that
    mixture whenever their number is a multiple of ``n_members``. Each member minimises

        1/N sum_i [l(x_i) + l(x_i + d_i)] + weight_decay / (2 N) |w|^2,  l(x) = -log p(y | x, w)
        d_ij = adversarial_step * (max_i x_ij - min_i x_ij) * sign(dl / dx_ij)

    or, with ``adversarial_step: 0``, the same without the second ``l``. The paper recommends
    0.01; the default is 0, because the gain is small against the doubled cost, and the network's
    inputs must be numbers that may be shifted.

    Source: Lakshminarayanan, Pritzel and Blundell (2017), "Simple and scalable predictive
    uncertainty estimation using deep ensembles", https://arxiv.org/abs/1612.01474; algorithm 1.
    """

    n_members: int = hyperparameter(5, "number of networks", valid=Int(1, 1000))
    weight_decay: float = hyperparameter(
        0.0,
        "precision of the Gaussian prior on the weights; 0 is maximum likelihood",
        valid=Float(0, 1e6),
    )
    adversarial_step: float = hyperparameter(
        0.0,
        "shift of adversarial inputs, as a fraction of each input's range; 0 is off",
        valid=Float(0, 1),
        search=Float(0, 0.02),
    )

    def make_model(self, problem: Problem) -> Model:
        """One member."""
        return PointModel(problem, self.weight_decay)

    def recipe(self) -> Recipe:
        """Adversarial, if asked for."""
        return replace(super().recipe(), adversarial_step=self.adversarial_step)

    def supports(self, problem: Problem) -> str | None:
        """Adversarial inputs are real numbers."""
        inputs = problem.train.inputs
        if self.adversarial_step and not inputs.is_floating_point():
            return (
                f"adversarial_step > 0 needs floating-point inputs, but they are {inputs.dtype}; "
                "set it to 0"
            )
        return super().supports(problem)

    def members_of(self, warm_start: Predictive | None) -> Sequence[Predictive | None]:
        """The members of an earlier ensemble of the same size."""
        if warm_start is None:
            return [None] * self.n_members
        if not isinstance(warm_start, _Mixture) or len(warm_start) != self.n_members:
            raise ContractError(
                f"warm_start must be an earlier fit of a deep ensemble of {self.n_members} "
                f"members, but got {warm_start}"
            )
        return warm_start.members

    def make_predictive(self, models: Sequence[Model]) -> Predictive:
        """The mixture of the members."""
        members = cast("Sequence[PointModel]", models)
        return _Mixture(members[0], stack_states(members))


@dataclass(frozen=True)
class _Mixture:
    model: PointModel  # lends its structure to all members
    states: States

    def __len__(self) -> int:
        return n_states(self.states)

    def __str__(self) -> str:
        return f"a deep ensemble of {len(self)} members"

    @property
    def members(self) -> list[PointModel]:
        """Copies, each a network of its own."""
        members = [copy.deepcopy(self.model) for _ in range(len(self))]
        for i, member in enumerate(members):
            state = {name: stacked[i] for name, stacked in self.states.items()}
            member.network.load_state_dict(state, strict=False)
        return members

    def sample(
        self, inputs: torch.Tensor, n_samples: int, *, rng: torch.Generator
    ) -> torch.Tensor:
        """Sample ``i`` is member ``i mod n_members``; nothing is drawn from ``rng``."""
        used = range(min(n_samples, len(self)))
        return sample_states(self.model, self.states, used, inputs, n_samples)
