"""Deep ensemble: several networks trained apart, an equal mixture of their predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from bhnbench.contract import Predictive, Problem, Report
from bhnbench.errors import ContractError
from bhnbench.space import Float, Int, hyperparameter
from bhnbench_methods.fitting import TrainedMethod, fit_models
from bhnbench_methods.models import PointModel
from bhnbench_methods.training import Recipe


@dataclass(frozen=True, kw_only=True)
class DeepEnsemble(TrainedMethod):
    """Networks that differ in initialisation and order of the data, trained as one computation.

    Use it as the strong and simple reference for uncertainty, at ``n_members`` times the cost of
    one network. Every member sees all data (no bagging) and keeps its own best epoch; the
    prediction is the equal mixture (section 2.4 of the paper)

        p(y | x) = 1/M sum_m p(y | x, w_m)

    Posterior sample ``i`` is member ``i mod n_members``, so that the samples are exactly that
    mixture whenever their number is a multiple of ``n_members``. The paper's adversarial
    training is left out.

    Source: Lakshminarayanan, Pritzel and Blundell (2017), "Simple and scalable predictive
    uncertainty estimation using deep ensembles", https://arxiv.org/abs/1612.01474.
    """

    n_members: int = hyperparameter(5, "number of networks", valid=Int(1, 1000))
    weight_decay: float = hyperparameter(
        0.0,
        "precision of the Gaussian prior on the weights; 0 is maximum likelihood",
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
        """Train the members of all replicas as one computation."""
        models = fit_models(
            lambda problem: PointModel(problem, self.weight_decay),
            problems,
            rngs=rngs,
            reports=reports,
            warm_starts=[self._members_of(start) for start in warm_starts],
            recipe=Recipe(learning_rate=self.learning_rate, lr_decay=self.lr_decay),
        )
        return [_Mixture(tuple(members)) for members in models]

    def _members_of(self, warm_start: Predictive | None) -> Sequence[PointModel | None]:
        if warm_start is None:
            return [None] * self.n_members
        if not isinstance(warm_start, _Mixture) or len(warm_start.members) != self.n_members:
            raise ContractError(
                f"warm_start must be an earlier fit of a deep ensemble of {self.n_members} "
                f"members, but got {warm_start}"
            )
        return warm_start.members


@dataclass(frozen=True)
class _Mixture:
    members: tuple[PointModel, ...]

    def __str__(self) -> str:
        return f"a deep ensemble of {len(self.members)} members"

    def sample(
        self, inputs: torch.Tensor, n_samples: int, *, rng: torch.Generator
    ) -> torch.Tensor:
        """Sample ``i`` is member ``i mod n_members``; nothing is drawn from ``rng``."""
        used = self.members[:n_samples]
        outputs = torch.cat([member.sample(inputs, 1, rng=rng) for member in used])
        return outputs[torch.arange(n_samples, device=inputs.device) % len(used)]
