"""The posterior of Laplace: a Gaussian over some of the weights of a trained network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import nn
from torch.func import functional_call, jvp

from bhnbench.contract import Problem
from bhnbench.errors import UnsupportedError
from bhnbench_methods.checks import check_rng
from bhnbench_methods.curvature import Curvature, scripting_silenced
from bhnbench_methods.layers import evaluating
from bhnbench_methods.models import PointModel
from bhnbench_methods.predictive import MAX_DRAWN, N_TOGETHER, normals, sample_outputs
from bhnbench_methods.streams import seeded

Weights = dict[str, torch.Tensor]  # by their names in the network


class LaplacePosterior(nn.Module):
    """N(trained weights, (curvature + precision)^-1) over the parameters of these names."""

    def __init__(
        self,
        point: PointModel,
        names: Sequence[str],
        curvature: Curvature,
        precision: float,
        linearised: bool,
        n_random_activations: int,
    ) -> None:
        super().__init__()
        self.point, self.curvature = point, curvature
        self.names, self.precision, self.linearised = names, precision, linearised
        self.n_random_activations = n_random_activations

    def figures(self, problem: Problem) -> dict[str, float]:
        """The precision of the prior, and scores on the validation data if there are any."""
        split, known = problem.validation, {"prior_precision": self.precision}
        if not len(split):
            return known
        with torch.no_grad():
            outputs = self.sample(split.inputs, 20, rng=torch.Generator().manual_seed(0))
        return problem.likelihood.scores(outputs, split.targets) | known

    def sample(
        self, inputs: torch.Tensor, n_samples: int, *, rng: torch.Generator
    ) -> torch.Tensor:
        """Outputs under one draw of the weights a sample."""
        check_rng(rng)
        n_random = sum(self.curvature.sizes)
        mean = self.point.network.get_parameter(self.names[0])

        def draw(n: int) -> torch.Tensor:
            noise = normals(n, n_random, rng, like=mean)
            return self.curvature.inverse_root(noise, self.precision)

        # A chunk computes the layers before the random ones once for all its samples.
        n_sharing = max(min(n_samples, N_TOGETHER, MAX_DRAWN // n_random), 1)
        return sample_outputs(
            self._run,
            inputs,
            draw,
            n_samples,
            n_random=n_random,
            n_activations=self.n_random_activations + self.point.n_activations // n_sharing,
        )

    def _run(self, inputs: torch.Tensor, deviation: torch.Tensor) -> torch.Tensor:
        """Outputs at weights that deviate this much from the mean, ``(n_random,)``."""
        network = self.point.network
        mean: Weights = {name: network.get_parameter(name) for name in self.names}
        pieces = deviation.split_with_sizes([w.numel() for w in mean.values()])
        away = {k: d.view_as(w) for (k, w), d in zip(mean.items(), pieces, strict=True)}

        def outputs(weights: Weights) -> torch.Tensor:
            out: torch.Tensor = functional_call(network, weights, (inputs,))
            return out

        if not self.linearised:
            return outputs({name: mean[name] + away[name] for name in mean})
        return _expand_linearly(outputs, mean, away)


def _expand_linearly(
    outputs: Callable[[Weights], torch.Tensor], mean: Weights, away: Weights
) -> torch.Tensor:
    """Outputs ``away`` from the mean, to first order."""
    with scripting_silenced():
        both = cast("tuple[torch.Tensor, torch.Tensor]", jvp(outputs, (mean,), (away,)))
    at_mean, change = both
    return at_mean + change


def rehearse_expansion(network: nn.Module, names: Sequence[str], problem: Problem) -> None:
    """Expand a network in the weights of the layers of these names, for two examples.

    Raises:
        UnsupportedError: torch has no forward-mode derivative of something in it.
    """
    inputs = problem.train.inputs[:2]
    mean: Weights = {
        f"{name}.{part}": parameter.detach()
        for name in names
        for part, parameter in network.get_submodule(name).named_parameters()
    }

    def outputs(weights: Weights) -> torch.Tensor:
        out: torch.Tensor = functional_call(network, weights, (inputs,))
        return out

    with torch.no_grad(), evaluating(network), seeded(0, inputs.device):
        try:
            _expand_linearly(outputs, mean, mean)
        except NotImplementedError as error:
            reason, *_ = str(error).split(". ")
            raise UnsupportedError(
                f"linearised needs forward-mode derivatives of the network ({reason}); "
                "use linearised: false"
            ) from error
