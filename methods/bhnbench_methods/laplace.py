"""Laplace: a Gaussian posterior around one trained network, from the curvature there."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import cast

import torch
from torch import nn

from bhnbench.contract import Predictive, Problem, Report
from bhnbench.errors import UnsupportedError
from bhnbench.likelihoods import Categorical, Gaussian
from bhnbench.space import Choice, Float, hyperparameter
from bhnbench_methods.curvature import (
    best_precision,
    curvature_of,
    why_unavailable,
)
from bhnbench_methods.diagnostics import check_posterior
from bhnbench_methods.fitting import TrainedMethod
from bhnbench_methods.laplace_posterior import LaplacePosterior, rehearse_expansion
from bhnbench_methods.layers import Site, check_plain, trace_trained
from bhnbench_methods.models import Model, PointModel, new_network
from bhnbench_methods.streams import seeded

_MAX_WEIGHTS = {"diag": 100_000, "full": 6_000}  # some minutes for 5000 examples of ten classes


@dataclass(frozen=True, kw_only=True)
class Laplace(TrainedMethod):
    """A network trained as usual, then a Gaussian over its last layer or all its layers.

    Use it for uncertainty at little more than the cost of one network, or after the fact: the
    mean of the posterior is the trained network. It needs the laplace-torch library (below). A
    network is trained to a maximum a posteriori w* under a prior of precision ``weight_decay``;
    then

        p(w | data) ~ N(w*, (H + prior_precision)^-1),   H = sum_i J_i^T F_i J_i

    J_i are the Jacobians of the outputs in the weights and F_i is the Fisher information of the
    likelihood in the outputs (the generalised Gauss-Newton matrix). ``subset`` says which
    weights and biases are random, those of the Linear or Conv layer that runs last or those of
    all such layers, and ``hessian`` what is kept of H: ``kron`` one Kronecker product a weight
    matrix, ``diag`` the diagonal, ``full`` all of it. The rest of the network stays as trained.
    Unless it is given, ``prior_precision`` is the one of highest marginal likelihood; what is
    random has that prior, biases too, which are free while the network is trained.

    With ``linearised``, a sample is the network's first-order expansion around w* at sampled
    weights, the model whose posterior this is; without, the network itself at these weights,
    which underfits where the Gaussian is wide (Immer et al., 2021). For a last layer that yields
    the outputs they are the same. For real values the noise scale, where it comes from a layer,
    is as random as the mean; a noise scale that is a parameter of its own stays as trained.
    After its epochs it reports one step more: the Gaussian's own scores.

    Departures: predictions are averages over samples, not the probit approximation, so that all
    methods are scored alike; the precision of the prior is one for all layers, and is never tuned
    on validation data, nor is it the ``weight_decay`` of training unless it is set to that; w* is
    the network of the best validation epoch, which may be short of the maximum.

    ``pip install 'bhnbench[laplace]'`` brings torchvision along, which the library declares but
    does not need; where its build is not torch's, the library cannot be imported. Without it:

        pip install --no-deps laplace-torch asdfghjkl backpack-for-pytorch einconv einops
        pip install --no-deps curvlinops-for-pytorch lightning-utilities linear-operator
        pip install --no-deps opt-einsum torchmetrics unfoldnd

    Source: Daxberger et al. (2021), "Laplace redux", sections 2 and 3,
    https://arxiv.org/abs/2106.14806; Immer, Korzepa and Bauer (2021), "Improving predictions of
    Bayesian neural nets via local linearization", https://arxiv.org/abs/2008.08400.
    """

    subset: str = hyperparameter(
        "last_layer", "which layers are random", valid=Choice("last_layer", "all")
    )
    hessian: str = hyperparameter(
        "kron", "what is kept of the curvature", valid=Choice("kron", "diag", "full")
    )
    prior_precision: float | None = hyperparameter(
        None,
        "precision of the Gaussian prior; null: the one of highest marginal likelihood",
        valid=Float(1e-6, 1e6),
    )
    linearised: bool = hyperparameter(True, "expand the network around its trained weights")
    weight_decay: float = hyperparameter(
        1.0,
        "precision of the Gaussian prior on the weights while the network is trained",
        valid=Float(0, 1e6),
    )

    def make_model(self, problem: Problem) -> Model:
        """The network as it is."""
        return PointModel(problem, self.weight_decay)

    def supports(self, problem: Problem) -> str | None:
        """It needs its library, a likelihood that this knows, and a network of a fit size."""
        kind = type(problem.likelihood)
        if kind not in (Categorical, Gaussian):
            known = "a Categorical or Gaussian likelihood"
            return f"it needs {known}, but the problem has {kind.__name__}"
        reason = super().supports(problem) or why_unavailable()
        if reason is not None:
            return reason
        network, sites = self._find_random(problem)
        names = [site.name for site in sites]
        try:
            check_plain(network, names)
            reason = self._why_unfit([network.get_submodule(name) for name in names])
            if reason is None and self.linearised:
                rehearse_expansion(network, names, problem)
        except UnsupportedError as error:
            return str(error)
        return reason

    def _why_unfit(self, layers: Sequence[nn.Module]) -> str | None:
        if not layers:
            return "it needs a Linear or Conv layer to train, but the network has none"
        parameters = [p for layer in layers for p in layer.parameters()]
        if len(set(parameters)) < len(parameters):
            return "it needs weights that belong to one layer each, but some layers share them"
        others = {type(m).__name__ for m in layers if not isinstance(m, nn.Linear | nn.Conv2d)}
        if self.hessian == "kron" and others:
            return (
                "hessian kron needs layers to be Linear or Conv2d, but got "
                f"{', '.join(sorted(others))}; use hessian diag"
            )
        n_weights = sum(p.numel() for p in parameters)
        most = _MAX_WEIGHTS.get(self.hessian, n_weights)
        if n_weights > most:
            return (
                f"hessian {self.hessian} needs at most {most} random weights, but subset "
                f"{self.subset} has {n_weights}; use hessian kron"
            )
        return None

    def _find_random(self, problem: Problem) -> tuple[nn.Module, Sequence[Site]]:
        """A network as before training, and its layers whose weights are to be random."""
        with seeded(0, problem.train.inputs.device):
            network = new_network(problem)
            sites = trace_trained(network, problem.train.inputs[:2]).sites
        return network, sites[-1:] if self.subset == "last_layer" else sites

    def members_of(self, warm_start: Predictive | None) -> Sequence[Predictive | None]:
        """The network at the mean of an earlier posterior."""
        return [warm_start.point if isinstance(warm_start, LaplacePosterior) else warm_start]

    def fit_many(
        self,
        problems: Sequence[Problem],
        *,
        rngs: Sequence[torch.Generator],
        reports: Sequence[Report],
        warm_starts: Sequence[Predictive | None],
    ) -> list[Predictive]:
        """Train all networks as one computation, then find the curvature of each.

        Raises:
            UnsupportedError: the reason of ``supports``.
        """
        for problem in problems:
            reason = self.supports(problem)
            if reason is not None:  # before all that training
                raise UnsupportedError(reason)
        points = super().fit_many(problems, rngs=rngs, reports=reports, warm_starts=warm_starts)
        posteriors = []
        for point, problem, report in zip(points, problems, reports, strict=True):
            posteriors.append(self._expand(cast("PointModel", point), problem))
            report(problem.epochs + 1, posteriors[-1].figures(problem))
            check_posterior(posteriors[-1], problem, is_random=True)
        return list(posteriors)

    def _expand(self, point: PointModel, problem: Problem) -> LaplacePosterior:
        network = copy.deepcopy(point.network)
        untrained, sites = self._find_random(problem)
        for site in sites:
            for name, parameter in untrained.get_submodule(site.name).named_parameters():
                known = network.get_parameter(f"{site.name}.{name}")
                known.requires_grad_(parameter.requires_grad)  # what is frozen is known
        mean = {name: p.detach() for name, p in network.named_parameters() if p.requires_grad}
        curvature = curvature_of(network, problem, self.hessian)
        precision = self.prior_precision
        if precision is None:
            precision = best_precision(curvature, torch.cat([w.flatten() for w in mean.values()]))
        # What comes after a layer is about as large as its outputs.
        n_random = 2 * sum(prod(site.output_shape) for site in sites)
        names = list(mean)
        return LaplacePosterior(point, names, curvature, precision, self.linearised, n_random)
