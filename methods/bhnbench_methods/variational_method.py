"""Methods that minimise a KL: how much it weighs in the course of training."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bhnbench.space import hyperparameter
from bhnbench_methods.fitting import TrainedMethod
from bhnbench_methods.schedules import constant, warm_up
from bhnbench_methods.training import Recipe


@dataclass(frozen=True, kw_only=True)
class VariationalMethod(TrainedMethod):
    """A method that trains a posterior by its KL, which may come in gradually."""

    kl_annealing: bool = hyperparameter(
        False,
        "let the weight of the KL rise from 0 to 1 in the first half of the fit; the epoch "
        "that is kept is one of the second half",
    )

    def recipe(self) -> Recipe:
        """Validated with 10 posterior samples."""
        return replace(
            super().recipe(),
            kl_schedule=warm_up(0, 0.5) if self.kl_annealing else constant,
            reports_kl=True,
            n_validation_samples=10,
        )
