"""Maximum likelihood: one network, point estimate of its weights."""

from __future__ import annotations

from dataclasses import dataclass

from bhnbench.contract import Problem
from bhnbench.space import Float, hyperparameter
from bhnbench_methods.fitting import TrainedMethod
from bhnbench_methods.models import Model, PointModel


@dataclass(frozen=True, kw_only=True)
class MaximumLikelihood(TrainedMethod):
    """One network trained on the log-likelihood: the baseline that every other method extends.

    Use it to see what the posterior buys: it has the cost of one network and no epistemic
    uncertainty, so all its samples are equal. It minimises, with Adam,

        -1/N sum_i log p(y_i | x_i, w) + weight_decay / (2 N) |w|^2

    ``weight_decay`` is the precision of a Gaussian prior on the weights of Linear
    and Conv layers: 0 is maximum likelihood, more is maximum a posteriori (MAP). It is in units
    of the prior, not of the mean loss, so that it fades as data come in.

    The fit returns the epoch of the highest validation log-likelihood; gradients of a norm above
    10 are clipped.

    Source: MacKay (1992), "A practical Bayesian framework for backpropagation networks",
    https://doi.org/10.1162/neco.1992.4.3.448.
    """

    weight_decay: float = hyperparameter(
        0.0,
        "precision of the Gaussian prior on the weights; 0 is maximum likelihood",
        valid=Float(0, 1e6),
    )

    def make_model(self, problem: Problem) -> Model:
        """The network as it is."""
        return PointModel(problem, self.weight_decay)
