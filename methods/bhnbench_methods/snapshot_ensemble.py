"""Snapshot ensemble: one network, kept each time its learning rate has come down."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from bhnbench.contract import Problem
from bhnbench.space import Float, Int, hyperparameter
from bhnbench_methods.fitting import TrainedMethod
from bhnbench_methods.kept_samples import SampledModel, evenly
from bhnbench_methods.models import Model
from bhnbench_methods.schedules import cosine_cycles, product
from bhnbench_methods.training import Recipe


@dataclass(frozen=True, kw_only=True)
class SnapshotEnsemble(TrainedMethod):
    """Several networks from one fit: the learning rate falls and restarts, again and again.

    Use it for much of the gain of a deep ensemble at the training cost of one network: the
    members share their past and differ less. The budget's T steps are divided into M cycles;
    step t (from 0) of the fit has the learning rate

        learning_rate / 2 * (cos(pi * c(t)) + 1),   c(t) = (t M / T) mod 1

    and the network at the end of each cycle is kept. The prediction is their equal mixture;
    posterior sample ``i`` is snapshot ``i mod M``, and fewer samples than snapshots are evenly
    spaced ones, the last among them. ``lr_decay`` lowers the peaks tenfold over the fit. A fit
    of fewer steps than cycles keeps one snapshot a step.

    Departures: the steps are Adam's, as for the other methods, not those of SGD with momentum;
    the mixture is of all snapshots, not of the last few only.
    The scores reported are those of the mixture so far, before that of the present network.

    Source: Huang, Li, Pleiss, Liu, Hopcroft and Weinberger (2017), "Snapshot ensembles: train 1,
    get M for free", section 3, equation 2, https://arxiv.org/abs/1704.00109.
    """

    learning_rate: float = hyperparameter(
        3e-3,
        "step size of Adam at the start of a cycle",
        valid=Float(1e-8, 10),
        search=Float(3e-4, 3e-2, log=True),
    )
    n_cycles: int = hyperparameter(
        5, "cycles, one snapshot each", valid=Int(1, 1000), search=Int(2, 10)
    )
    weight_decay: float = hyperparameter(
        0.0,
        "precision of the Gaussian prior on the weights; 0 is maximum likelihood",
        valid=Float(0, 1e6),
    )

    def make_model(self, problem: Problem) -> Model:
        """The network as it is."""
        return SampledModel(problem, self.weight_decay)

    def recipe(self) -> Recipe:
        """Cosine cycles; what is kept is the end of each."""
        recipe = super().recipe()
        return replace(
            recipe,
            lr_schedule=product(recipe.lr_schedule, cosine_cycles(self.n_cycles)),
            keep_best=False,
            samples_at=partial(evenly, n=self.n_cycles),
        )
