"""Dropout: noise in training, one network without noise in prediction."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bhnbench.contract import Problem
from bhnbench_methods.dropout_model import DropoutMethod, DropoutModel
from bhnbench_methods.models import Model
from bhnbench_methods.predictive import repeat_outputs


@dataclass(frozen=True, kw_only=True)
class Dropout(DropoutMethod):
    """A network that must do without a random part of its activations in every training step.

    Use it as the regularised point estimate that ``mc_dropout`` is to be compared with: the same
    training at the same cost, but a prediction at the cost of one pass and no epistemic
    uncertainty, so all its samples are equal. It minimises, with masks drawn anew for every
    example and step,

        -1/N sum_i log p(y_i | x_i, w, z_i) + KL / N

    where the input ``h`` of each Linear or Conv layer but the first is ``h * z / (1 - rate)``,
    ``z ~ Bernoulli(1 - rate)``; ``mc_dropout`` says what the KL is and how rates are learned.
    The prediction has ``z = E[z]``: the weight-scaling rule. For a softmax on a masked linear
    layer it is exactly the normalised geometric mean of the predictions under all masks, for
    deeper networks it is close to it.

    Departure: kept activations are scaled up in training instead of weights down in prediction,
    which is the same network with weights in other units.

    The fit returns the epoch of the highest validation log-likelihood; gradients of a norm above
    10 are clipped.

    Source: Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov (2014), "Dropout: a simple
    way to prevent neural networks from overfitting", sections 4 and 10,
    https://jmlr.org/papers/v15/srivastava14a.html.
    """

    def make_model(self, problem: Problem) -> Model:
        """The network with a gate before each layer that has a rate."""
        return _MeanModel(problem, self)


class _MeanModel(DropoutModel):
    @property
    def is_random(self) -> bool:
        """No: the masks are averaged out."""
        return False

    def sample(
        self, inputs: torch.Tensor, n_samples: int, *, rng: torch.Generator
    ) -> torch.Tensor:
        """The outputs without masks ``n_samples`` times; nothing is drawn from ``rng``."""
        return repeat_outputs(self.run_plain, inputs, n_samples, n_activations=self.n_activations)
