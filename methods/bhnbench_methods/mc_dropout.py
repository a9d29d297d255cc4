"""MC dropout: one network, dropout kept on when predicting."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from bhnbench.contract import Problem
from bhnbench_methods.dropout_model import DropoutMethod, DropoutModel
from bhnbench_methods.models import Model, RandomModel
from bhnbench_methods.predictive import Draw
from bhnbench_methods.training import Recipe


@dataclass(frozen=True, kw_only=True)
class MCDropout(DropoutMethod):
    """Dropout on hidden activations, in training and in prediction: a variational posterior.

    Use it for cheap uncertainty on top of any network with at least two Linear or Conv layers: a
    training step costs about a tenth more than that of one network. The input ``h`` of each
    layer but the first becomes ``h * z / (1 - rate)``, ``z ~ Bernoulli(1 - rate)``; the
    network's own inputs are dropped with ``input_rate``. It minimises

        -1/N sum_i log p(y_i | x_i, w, z_i) + KL / N
        KL = sum_l [weight_decay / 2 |w_l|^2 / (1 - rate_l) - n_l H(rate_l)] + constant

    with ``weight_decay`` the precision of the Gaussian prior on the weights, ``n_l`` the masks of
    a layer and ``H`` the entropy of a coin. With ``learn_rates`` (concrete dropout) the rates
    follow the gradient too: masks are then smooth in training, with temperature 0.1, and the rates
    are reported as ``rate_1``, ``rate_2``, ... Else ``H`` is a constant and left out. As that KL
    is known up to a constant only, it is part of the objective but is not reported.

    In training every example has a mask of its own. A posterior sample is one mask, the same for
    all inputs ("consistent" dropout, Kirsch et al., 2019): a sample is then a function, as it is
    for the other methods, and the predictive of a single input is unchanged.

    In a convolution, ``drop: maps`` masks weights, as the paper's KL has it; ``units`` masks each
    position by itself, is the more usual, and counts every position in ``n_l``: with learned
    rates choose ``maps``.

    Departures: the KL is in nats for the whole data set, so ``weight_decay`` is the paper's
    squared length-scale, and nothing else needs to be tuned to its size. Posterior samples have
    masks of zeros and ones with learned rates too, of which the smooth ones are a relaxation.

    The fit returns the epoch of the highest validation log-likelihood; gradients of a norm above
    10 are clipped.

    Source: Gal and Ghahramani (2016), "Dropout as a Bayesian approximation", equations 3-6,
    https://arxiv.org/abs/1506.02142; Gal, Hron and Kendall (2017), "Concrete dropout",
    equations 1-5, https://arxiv.org/abs/1705.07832.
    """

    def make_model(self, problem: Problem) -> Model:
        """The network with a gate before each layer that has a rate."""
        return _MaskedModel(problem, self)

    def recipe(self) -> Recipe:
        """Validated with 10 masks."""
        return replace(super().recipe(), n_validation_samples=10)


class _MaskedModel(DropoutModel, RandomModel):
    @property
    def is_random(self) -> bool:
        """Whether there is a rate above 0."""
        return bool(self.gates)

    def drawer(self, rng: torch.Generator) -> Draw[torch.Tensor]:
        """One mask a sample, made of uniform numbers."""
        device = next(self.parameters()).device

        def draw(n: int) -> torch.Tensor:
            return torch.rand(n, self.n_random, generator=rng, dtype=self.dtype).to(device)

        return draw

    def run_with(self, inputs: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Outputs under one mask."""
        return self.run_masked(inputs, values)
