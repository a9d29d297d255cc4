"""Methods that sample the posterior by stochastic gradients: what they share."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from bhnbench.contract import Problem
from bhnbench.space import Float, hyperparameter
from bhnbench_methods.fitting import TrainedMethod
from bhnbench_methods.kept_samples import ChainModel
from bhnbench_methods.models import Model
from bhnbench_methods.training import Recipe


@dataclass(frozen=True, kw_only=True)
class LangevinMethod(TrainedMethod):
    """A method whose posterior is the states of a Markov chain over all parameters."""

    prior_precision: float = hyperparameter(
        0.03,
        "inverse variance of the Gaussian prior on a weight, over the inputs of its unit",
        valid=Float(1e-6, 1e6),
        search=Float(1e-3, 1, log=True),
    )
    temperature: float = hyperparameter(
        1.0, "1 samples the posterior, less a sharper one", valid=Float(0, 1e3)
    )
    preconditioned: bool = hyperparameter(
        True, "scale each parameter's step by the size of its gradients"
    )

    def make_model(self, problem: Problem) -> Model:
        """The network with a prior on all its parameters."""
        return ChainModel(problem, self.prior_precision)

    @abstractmethod
    def recipe(self) -> Recipe:
        """How the chain moves, and which of its states are kept."""
        return super().recipe()
