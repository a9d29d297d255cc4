"""SGLD: samples of the posterior from gradient steps with noise."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from bhnbench.space import Float, Int, hyperparameter
from bhnbench_methods.kept_samples import evenly
from bhnbench_methods.langevin_method import LangevinMethod
from bhnbench_methods.optimisers import Langevin
from bhnbench_methods.schedules import constant, early_in_cycles, polynomial_decay
from bhnbench_methods.training import Recipe

_MIN_ADAPTATION = 0.1  # of the steps, of a chain of less burn-in


@dataclass(frozen=True, kw_only=True)
class SGLD(LangevinMethod):
    """Stochastic-gradient Langevin dynamics: a Markov chain over all parameters.

    Use it for samples of the posterior itself, without a family that limits them: exact for small
    steps, full batches and long chains. With minibatches the noise of their gradients, of variance
    s^2 for that of the mean loss, heats the chain: by up to learning_rate G s^2 N / 2, and by less
    where an epoch, over which that noise sums to zero, moves the chain little. Larger steps spread
    it too, so a posterior that looks too wide asks for a lower ``learning_rate``, larger batches
    or a lower ``temperature``. Training costs up to twice that of one network, ``n_kept`` networks
    are held in memory, and a sample costs a forward pass. Each step moves the parameters w of U(w)
    = -log p(data, w), estimated on a minibatch of the N examples, by

        w' = w - eps/2 G grad U(w) + N(0, temperature eps G),   eps = 2 learning_rate / N

    that is, by SGD at ``learning_rate`` on the mean loss, and noise. G is one, or, if
    ``preconditioned``, 1 / (0.001 + r) for each parameter, with r the running root mean square of
    its gradient of the mean loss U / N (Li et al.), taken in burn-in and fixed from then on: in
    the first tenth of the steps where ``burn_in`` is less than that. The prior is N(0, 1 /
    (prior_precision n_inputs)) on a weight of a Linear or Conv layer with ``n_inputs`` inputs a
    unit, and N(0, 1 / prior_precision) on all else.

    The fraction ``burn_in`` of the steps is thrown away; ``n_kept`` states, evenly spaced over
    the rest, are the posterior: sample ``i`` is number ``i mod n_kept``, and fewer samples than
    states are evenly spaced ones. A fit of too few steps keeps each one after burn-in. Buffers of
    batch normalisation are kept with every state. A warm start goes on from the last state. The
    scores reported are those of the mixture of states so far, before burn-in of the present one.

    Departures: a constant step is the default, ``lr_decay`` lowers it tenfold as the paper's (b +
    t)^-0.55; kept states have equal weights, not eps. The preconditioner is on by default, as one
    learning rate then suits networks and likelihoods of any scale (without, 0.01 to 0.5). Li et
    al. adapt it throughout and leave out the term for its change, which samples another law at any
    step size; fixed, it needs no such term. States kept in a first tenth without burn-in have that
    bias. Their floor of 1e-5 is 0.001, so that parameters without a gradient are not drowned in
    noise. Gradients of the mean loss of a norm above 10 are clipped.

    Source: Welling and Teh (2011), "Bayesian learning via stochastic gradient Langevin dynamics",
    equation 4, https://www.stats.ox.ac.uk/~teh/research/compstats/WelTeh2011a.pdf; Li, Chen,
    Carlson and Carin (2016), "Preconditioned stochastic gradient Langevin dynamics for deep neural
    networks", https://arxiv.org/abs/1512.07666.
    """

    learning_rate: float = hyperparameter(
        3e-3,
        "step size on the mean loss of an example",
        valid=Float(1e-8, 10),
        search=Float(3e-4, 3e-2, log=True),
    )
    lr_decay: bool = hyperparameter(
        False, "lower the learning rate tenfold over the fit, as (b + t)^-0.55"
    )
    burn_in: float = hyperparameter(
        0.5, "fraction of the steps that is thrown away", valid=Float(0, 0.99)
    )
    n_kept: int = hyperparameter(20, "states that are kept", valid=Int(1, 100_000))

    def recipe(self) -> Recipe:
        """Langevin dynamics; what is kept is the chain after burn-in."""
        return replace(
            super().recipe(),
            lr_schedule=polynomial_decay if self.lr_decay else constant,
            langevin=Langevin(
                temperature=self.temperature,
                preconditioned=self.preconditioned,
                adapts=early_in_cycles(1, max(self.burn_in, _MIN_ADAPTATION)),
            ),
            keep_best=False,
            samples_at=partial(evenly, n=self.n_kept, start=self.burn_in),
        )
