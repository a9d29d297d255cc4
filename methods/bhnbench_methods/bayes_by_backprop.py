"""Bayes by backprop: an independent Gaussian for every weight and bias."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, cast

from torch import nn

from bhnbench.contract import Predictive, Problem
from bhnbench.errors import ContractError
from bhnbench.space import Choice, Float, hyperparameter
from bhnbench_methods.backprop_layers import BackpropLayer, ContinuedLayer, MixtureLayer
from bhnbench_methods.gaussian_weights import GaussianModel
from bhnbench_methods.models import Model
from bhnbench_methods.variational_method import VariationalMethod


@dataclass(frozen=True, kw_only=True)
class BayesByBackprop(VariationalMethod):
    """A factorised Gaussian posterior over all weights and biases of Linear and Conv layers.

    Use it as the plain variational Bayesian network: twice the parameters and two to three times
    the time of one network, four times with a mixture. ``w ~ N(mu, sd^2)``, each with its own
    ``mu`` and ``log sd^2``, minimises

        -1/N sum_i E[log p(y_i | x_i, w)] + KL(q(w) || p(w)) / N

    ``estimator: local`` draws the pre-activations of each example (Kingma et al., 2015), whose
    gradient is less noisy than that of ``weights``, one draw of all weights a minibatch. In
    prediction a posterior sample is one draw of all weights.

    Priors: ``gaussian``, ``N(0, prior_sd^2)``, with the KL in closed form; ``empirical_bayes``
    makes it ``N(0, s^2)`` in each layer's weights, at the best ``s^2 = mean(mu^2 + sd^2)``, while
    biases keep ``prior_sd``. ``scale_mixture`` (equation 7), ``wide_share N(0, prior_sd^2) +
    (1 - wide_share) N(0, narrow_sd^2)``, has no closed form: ``E[log p(w)]`` is taken at the drawn
    weights, so that the estimator is always ``weights``, and there is no empirical Bayes.

    The KL counts every weight, and a wide network has more weights than a small dataset has
    nats to pay: at the optimum nearly all weights are prior noise. Where 5000 images train a
    million weights, a prior as narrow as the initial weights (``prior_sd`` of 0.04, or
    ``empirical_bayes``) pulls all means to zero within an epoch, and nothing is learned. The
    default prior hardly pulls at the means; the noise starts at ``initial_sd``, where it already
    regularises, and the KL raises it by a factor e in about 2000 steps at the default learning
    rate. The best validation epoch is kept, before noise drowns the signal.

    Where data come in parts, the posterior of one part is the prior of the next: a problem whose
    ``prior`` is an earlier fit's result is learned with the KL to that, weight by weight, and the
    settings of the prior are without effect.

    Departures: ``log sd^2`` instead of softplus; Adam; the same KL weight for all minibatches;
    the means start as the network initialises itself.

    Source: Blundell, Cornebise, Kavukcuoglu and Wierstra (2015), "Weight uncertainty in neural
    networks", sections 3.2-3.3, https://arxiv.org/abs/1505.05424; Kingma, Salimans and Welling
    (2015), section 2.3, https://arxiv.org/abs/1506.02557.
    """

    takes_prior: ClassVar[bool] = True

    estimator: str = hyperparameter(
        "local",
        "what is random in training: pre-activations, or weights drawn once a minibatch",
        valid=Choice("local", "weights"),
    )
    prior: str = hyperparameter(
        "gaussian", "family of the prior", valid=Choice("gaussian", "scale_mixture")
    )
    prior_sd: float = hyperparameter(
        1.0,
        "prior standard deviation; in a mixture, of the wide component",
        valid=Float(1e-6, 1e6),
        search=Float(0.1, 10, log=True),
    )
    narrow_sd: float = hyperparameter(
        0.0025, "standard deviation of a mixture's narrow component", valid=Float(1e-6, 1e6)
    )
    wide_share: float = hyperparameter(
        0.5, "share of a mixture's wide component", valid=Float(0.001, 0.999)
    )
    empirical_bayes: bool = hyperparameter(
        False, "learn the scale of each layer's Gaussian prior of weights"
    )
    initial_sd: float = hyperparameter(
        0.04,
        "standard deviation of weights and biases at the start",
        valid=Float(1e-6, 1e3),
        search=Float(0.005, 0.2, log=True),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prior != "scale_mixture":
            return
        if self.empirical_bayes:
            raise ValueError(
                "prior: scale_mixture has no empirical Bayes; take prior: gaussian for it"
            )
        if self.narrow_sd >= self.prior_sd:
            raise ValueError(
                "narrow_sd < prior_sd must hold in a scale mixture, but got "
                f"narrow_sd={self.narrow_sd}, prior_sd={self.prior_sd}"
            )

    def make_model(self, problem: Problem) -> Model:
        """The network with Gaussian weights and biases."""
        return _BackpropModel(problem, self)


class _BackpropModel(GaussianModel[BackpropLayer]):
    def __init__(self, problem: Problem, method: BayesByBackprop) -> None:
        mixture = method.prior == "scale_mixture" and problem.prior is None
        local = method.estimator == "local" and not mixture
        super().__init__(problem, _layer_maker(method, problem.prior), local=local)
        n_theirs = len(cast("_BackpropModel", problem.prior or self).layers)
        if n_theirs != len(self.layers):
            raise ContractError(
                "a problem's prior must be of the same network, but has "
                f"{n_theirs} random layers, not {len(self.layers)}"
            )

    def figures(self) -> dict[str, float]:
        """Learned scales of the priors, in the order of execution."""
        learned = [layer.learned_prior_sd() for layer in self.layers if layer.learns_prior]
        return {f"prior_sd_{i}": sd for i, sd in enumerate(learned, start=1)}


def _layer_maker(
    method: BayesByBackprop, earlier: Predictive | None
) -> Callable[[nn.Module], BackpropLayer]:
    """What makes a plain layer of the network a random one, in the order of execution."""
    sd = method.initial_sd
    if earlier is None and method.prior == "scale_mixture":
        wide, narrow, share = method.prior_sd, method.narrow_sd, method.wide_share
        return partial(
            MixtureLayer, initial_sd=sd, wide_sd=wide, narrow_sd=narrow, wide_share=share
        )
    if earlier is None:
        learns = method.empirical_bayes
        return partial(BackpropLayer, initial_sd=sd, prior_sd=method.prior_sd, learns_prior=learns)
    if not isinstance(earlier, _BackpropModel):
        raise ContractError(
            "a problem's prior must be what an earlier fit of BayesByBackprop returned, but got "
            f"a {type(earlier).__name__}"
        )
    *_, last = earlier.layers  # beyond it, the numbers of layers differ, which is told later
    layers = iter(earlier.layers)
    return lambda layer: ContinuedLayer(layer, initial_sd=sd, earlier=next(layers, last))
