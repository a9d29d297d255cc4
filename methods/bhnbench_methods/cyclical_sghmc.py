"""Cyclical SG-HMC: find a mode, sample it, leave for the next."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

from bhnbench.space import Float, Int, hyperparameter
from bhnbench_methods.kept_samples import evenly
from bhnbench_methods.langevin_method import LangevinMethod
from bhnbench_methods.optimisers import Langevin
from bhnbench_methods.schedules import cosine_cycles, early_in_cycles, late_in_cycles, product
from bhnbench_methods.training import Recipe

_SETTLING = 0.1  # of the steps with noise: before them, gradients can vanish


@dataclass(frozen=True, kw_only=True)
class CyclicalSGHMC(LangevinMethod):
    """Stochastic-gradient Hamiltonian Monte Carlo whose step size falls and restarts.

    Use it where the posterior has several modes that a chain of small steps would never leave,
    at up to twice the cost of one network's training and with ``n_cycles n_kept_per_cycle``
    networks in memory. Each of the M cycles of the budget's T steps begins with large steps
    without noise (exploration), and from its fraction ``exploration`` on samples with noise and
    falling steps, with U(w) = -log p(data, w) estimated on a minibatch of the N examples:

        v' = (1 - friction) v - lr(t)/N G grad U(w) + N(0, 2 friction lr(t)/N temperature G)
        w' = w + v',   lr(t) = learning_rate / 2 (cos(pi c(t)) + 1),   c(t) = (t M / T) mod 1

    G is one, or, if ``preconditioned``, 1 / (0.001 + r) for each parameter, with r the running
    root mean square of its gradient of the mean loss U / N, taken in exploration and in the first
    tenth of the steps with noise, and fixed for the rest of the cycle. The prior is N(0, 1 /
    (prior_precision n_inputs)) on a weight of a Linear or Conv layer with ``n_inputs`` inputs a
    unit, and N(0, 1 / prior_precision) on all else.

    After that tenth of each cycle ``n_kept_per_cycle`` states, evenly spaced, are kept: posterior
    sample ``i`` is number ``i`` modulo their number, and fewer samples than states are evenly
    spaced ones. A fit of too few steps keeps what there are. Buffers of batch normalisation are
    kept with every state. A warm start goes on from the last state, at rest. The scores reported
    are those of the mixture of states so far, before that of the present one.

    Departures: the preconditioner is not the paper's, but that of ``sgld``. It is on by default,
    as one learning rate then suits networks and likelihoods of any scale (without, 0.01 to 0.5).
    The first tenth of the steps with noise is thrown away. Samples are exact for small steps, full
    batches and long cycles; the noise of minibatches, of variance s^2 for the gradient of the mean
    loss, adds up to lr(t) G s^2 N / (2 friction) to the temperature, and less where an epoch, over
    which that noise sums to zero, moves the chain little. ``lr_decay`` lowers the peaks tenfold
    over the fit. Gradients of the mean loss of a norm above 10 are clipped.

    Source: Zhang, Li, Zhang, Chen and Wilson (2020), "Cyclical stochastic gradient MCMC for
    Bayesian deep learning", equation 1 and algorithm 2, https://arxiv.org/abs/1902.03932.
    """

    learning_rate: float = hyperparameter(
        1e-3,
        "step size on the mean loss of an example, at the start of a cycle",
        valid=Float(1e-8, 10),
        search=Float(1e-4, 1e-2, log=True),
    )
    n_cycles: int = hyperparameter(4, "cycles", valid=Int(1, 1000), search=Int(2, 8))
    exploration: float = hyperparameter(
        0.5,
        "fraction of a cycle without noise and samples",
        valid=Float(0, 0.99),
        search=Float(0.25, 0.9),
    )
    n_kept_per_cycle: int = hyperparameter(5, "states kept of each cycle", valid=Int(1, 10_000))
    friction: float = hyperparameter(
        0.1,
        "fraction of the velocity lost in a step; momentum is 1 less it",
        valid=Float(1e-3, 1),
        search=Float(0.03, 0.3, log=True),
    )

    def recipe(self) -> Recipe:
        """Cycles of SG-HMC; what is kept is the later part of each."""
        recipe = super().recipe()
        return replace(
            recipe,
            lr_schedule=product(recipe.lr_schedule, cosine_cycles(self.n_cycles)),
            langevin=Langevin(
                friction=self.friction,
                temperature=self.temperature,
                preconditioned=self.preconditioned,
                noise_schedule=late_in_cycles(self.n_cycles, self.exploration),
                adapts=early_in_cycles(self.n_cycles, self._settled),
            ),
            keep_best=False,
            samples_at=self._samples_at,
        )

    @property
    def _settled(self) -> float:
        """Fraction of a cycle from which on states are kept."""
        return self.exploration + _SETTLING * (1 - self.exploration)

    def _samples_at(self, n_steps: int) -> list[int]:
        return [
            begin + step
            for begin, end in pairwise([0, *evenly(n_steps, self.n_cycles)])
            for step in evenly(end - begin, self.n_kept_per_cycle, start=self._settled)
        ]
