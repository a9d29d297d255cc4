"""The layers of Bayes by backprop: independent Gaussian weights under each of its priors."""

from __future__ import annotations

import math

import torch
from torch import nn

from bhnbench.errors import ContractError
from bhnbench_methods.divergences import best_prior_sd, gaussian_kl, gaussian_kl_between
from bhnbench_methods.gaussian_weights import Drawn, GaussianLayer, Posterior


class BackpropLayer(GaussianLayer):
    """Gaussian weights and biases under a Gaussian prior, whose scale may be learned."""

    def __init__(
        self, layer: nn.Module, *, initial_sd: float, prior_sd: float, learns_prior: bool = False
    ) -> None:
        super().__init__(layer)
        self.prior_sd, self.learns_prior = prior_sd, learns_prior
        start = 2 * math.log(initial_sd)
        self.log_variance = nn.Parameter(torch.full_like(self.mean, start))
        bias = self.random_bias_mean
        self.bias_log_variance = (
            None if bias is None else nn.Parameter(torch.full_like(bias, start))
        )

    def posterior(self) -> Posterior:
        """Of weights and biases."""
        prior_sd = None if self.learns_prior else self.prior_sd
        variance, kl = gaussian_kl(self.mean, self.log_variance, prior_sd)
        if self.bias_mean is None or self.bias_log_variance is None:
            return Posterior(variance, None, kl)
        bias_variance, bias_kl = gaussian_kl(self.bias_mean, self.bias_log_variance, self.prior_sd)
        return Posterior(variance, bias_variance, kl + bias_kl)

    def parameters_of_posterior(self) -> dict[str, torch.Tensor]:
        """Means and log variances of weights and, if there are, biases."""
        own = {"weight_mean": self.mean, "weight_log_variance": self.log_variance}
        if self.bias_mean is not None and self.bias_log_variance is not None:
            own |= {"bias_mean": self.bias_mean, "bias_log_variance": self.bias_log_variance}
        return own

    def learned_prior_sd(self) -> float:
        """Of the weights."""
        return best_prior_sd(self.mean, self.posterior().weight_variance).item()


class MixtureLayer(BackpropLayer):
    """With a scale mixture for prior; its KL is complete only where weights are drawn."""

    def __init__(
        self,
        layer: nn.Module,
        *,
        initial_sd: float,
        wide_sd: float,
        narrow_sd: float,
        wide_share: float,
    ) -> None:
        super().__init__(layer, initial_sd=initial_sd, prior_sd=wide_sd)
        narrow = math.log1p(-wide_share) + math.log(wide_sd / narrow_sd)
        self.log_shares = math.log(wide_share), narrow
        self.excess_precision = 1 / narrow_sd**2 - 1 / wide_sd**2

    def drawn(self, noise: torch.Tensor) -> tuple[Drawn, torch.Tensor]:
        """The KL to the wide component, corrected by ``log wide(w) - log mixture(w)``."""
        drawn, kl = super().drawn(noise)
        random = (drawn.weight, drawn.bias if self.has_random_bias else None)
        corrections = [self._correction(w) for w in random if w is not None]
        return drawn, kl + torch.stack(corrections).sum()

    def _correction(self, weights: torch.Tensor) -> torch.Tensor:
        wide, narrow = self.log_shares  # over the wide component's density at the weights
        ratio = narrow - 0.5 * self.excess_precision * weights.square()
        return -torch.logaddexp(torch.full_like(ratio, wide), ratio).sum()


class ContinuedLayer(BackpropLayer):
    """With an earlier posterior for prior.

    Raises:
        ContractError: that is of a layer of another shape.
    """

    def __init__(self, layer: nn.Module, *, initial_sd: float, earlier: BackpropLayer) -> None:
        super().__init__(layer, initial_sd=initial_sd, prior_sd=1.0)  # which has no effect here
        theirs, ours = earlier.parameters_of_posterior(), self.parameters_of_posterior()
        shapes = [{name: tuple(t.shape) for name, t in p.items()} for p in (theirs, ours)]
        if shapes[0] != shapes[1]:
            raise ContractError(
                "a problem's prior must be of the same network, but the shapes of a layer differ: "
                f"{shapes[0]} and {shapes[1]}"
            )
        for name, tensor in theirs.items():
            self.register_buffer(f"prior_{name}", tensor.detach().clone(), persistent=False)

    def posterior(self) -> Posterior:
        """Of weights and biases."""
        own = self.parameters_of_posterior()
        terms = {
            kind: gaussian_kl_between(
                own[f"{kind}_mean"],
                own[f"{kind}_log_variance"],
                self.get_buffer(f"prior_{kind}_mean"),
                self.get_buffer(f"prior_{kind}_log_variance"),
            )
            for kind in ("weight", "bias")
            if f"{kind}_mean" in own
        }
        variance, kl = terms["weight"]
        if "bias" not in terms:
            return Posterior(variance, None, kl)
        bias_variance, bias_kl = terms["bias"]
        return Posterior(variance, bias_variance, kl + bias_kl)
