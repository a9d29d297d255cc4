"""Bayes by hypernet: an implicit posterior, made from noise by a generator network."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from bhnbench.contract import Problem
from bhnbench.space import Choice, Float, Int, hyperparameter
from bhnbench_methods.generators import Generator
from bhnbench_methods.implicit_kl import Discriminator, NearestNeighbours
from bhnbench_methods.models import Forward, Model, RandomModel, new_network
from bhnbench_methods.predictive import Draw, normals
from bhnbench_methods.targets import TARGETS
from bhnbench_methods.variational_method import VariationalMethod

HIDDEN = {"mlp": (64, 256), "affine": ()}
WIDE_SHARE, WIDE_SD, NARROW_SD = 0.3, 5.0, 0.01  # of the scale mixture, in units of prior_sd


@dataclass(frozen=True, kw_only=True)
class BayesByHypernet(VariationalMethod):
    """A posterior without a density: a generator network turns noise into gains or weights.

    Use it to see what an unrestricted generator makes of a posterior; ``bayesian_hypernet`` is
    the same with an invertible flow, whose KL needs no estimator. Training takes some 1.5 times
    as long as one network, 2.5 with a discriminator. The generator gets ``n_noise`` standard
    normals z and a one-hot code of what to make, the gains of one layer or one parameter tensor,
    which is added to the network's own start. With one w for the outputs of a minibatch, it
    minimises

        -1/N sum_i log p(y_i | x_i, w) + KL / N,  w = g(z),  KL of w to the prior

    with the KL estimated from ``n_kl_samples`` draws of both: by ``nearest_neighbours`` from
    distances, by ``discriminator`` from a network that learns to tell them apart. Take it with
    care. Number by number (the default), both are blind to dependence; it is free, though with
    less noise than numbers the true KL is infinite. For an affine generator nearest neighbours
    are then within 0.15 nats a number with 5 draws, 0.1 with 20, as long as the number stays
    within a prior sd of the prior's centre; who strays farther pays too little. Yet more draws are
    no better in training: a gradient grows as the distance to the nearest draw shrinks, and from
    20 on its outliers move the means by a posterior sd and more. Of
    ``whole_vectors`` they see little but the total variance. A discriminator number by number
    compares the prior with all numbers pooled: even a point passes for the prior if its numbers
    are spread like it. Trained on 5000 images of MNIST (810 gains), it reported 4 nats where the
    marginals, taken as Gaussian, had 1490; nearest neighbours 802 where they had 787.

    Version 1 of the paper has the discriminator, number by number; its published code leaves out
    the hidden layers (``generator: affine``) and averages the logits (``kl_reduction: mean``).
    Version 2 has nearest neighbours, weights, 1 to 64 numbers of noise and KL annealing.

    Departures: the discriminator takes one step a step of the generator, ``discriminator_speed``
    times as large, instead of 20, and none ahead, nor while ``kl_annealing`` has the KL's weight
    at zero (the first epoch); the prior is centred at the start, as that of the gains of
    ``bayesian_hypernet``; Adam; one trunk for all, scaled to ``initial_sd``. Version 1's toy code
    labels half of what is generated as prior; that cannot be chosen.

    The fit returns the epoch of the highest validation log-likelihood; gradients of a norm above
    10 are clipped.

    Source: Pawlowski, Brock, Lee, Rajchl and Glocker (2017), "Implicit weight uncertainty in
    neural networks", version 1, https://arxiv.org/abs/1711.01297v1, and version 2,
    https://arxiv.org/abs/1711.01297v2; nearest neighbours: Wang, Kulkarni and
    Verdu (2009), "Divergence estimation for multidimensional densities via k-nearest-neighbor
    distances".
    """

    target: str = hyperparameter("gains", "what is generated", valid=Choice(*TARGETS))
    generator: str = hyperparameter(
        "mlp",
        "two hidden layers of 64 and 256 units, or none, as in the published code of version 1",
        valid=Choice(*HIDDEN),
    )
    n_noise: int = hyperparameter(
        64, "numbers of noise in a draw", valid=Int(1, 1000), search=Int(1, 128, log=True)
    )
    shared_noise: bool = hyperparameter(
        True, "make all groups of a draw from the same noise, not each from its own"
    )
    initial_sd: float = hyperparameter(
        0.1,
        "standard deviation of what is generated at the start",
        valid=Float(1e-4, 10),
        search=Float(0.01, 0.5, log=True),
    )
    prior: str = hyperparameter(
        "gaussian", "family of the prior", valid=Choice("gaussian", "scale_mixture")
    )
    prior_sd: float = hyperparameter(
        1.0,
        "standard deviation of the Gaussian prior; factor of the mixture's two",
        valid=Float(1e-3, 1e3),
        search=Float(0.1, 10, log=True),
    )
    prior_mean: str = hyperparameter(
        "initial",
        "centre of the prior: the initial gains or weights, or zero",
        valid=Choice("initial", "zero"),
    )
    kl_estimator: str = hyperparameter(
        "nearest_neighbours",
        "how samples of posterior and prior are compared",
        valid=Choice("nearest_neighbours", "discriminator"),
    )
    whole_vectors: bool = hyperparameter(
        False, "compare whole draws, not their numbers one by one"
    )
    n_kl_samples: int = hyperparameter(
        5, "draws of posterior and prior to compare in each step", valid=Int(2, 10_000)
    )
    kl_reduction: str = hyperparameter(
        "sum",
        "sum log-ratios over the numbers, or average them as in the published code of version 1",
        valid=Choice("sum", "mean"),
    )
    discriminator_speed: float = hyperparameter(
        5.0, "its step size as a multiple of the learning rate", valid=Float(0.01, 1000)
    )

    def make_model(self, problem: Problem) -> Model:
        """The network, and the generator of its gains or weights."""
        return _GeneratedModel(problem, self)


class _GeneratedModel(RandomModel):
    def __init__(self, problem: Problem, method: BayesByHypernet) -> None:
        super().__init__()
        self.method = method
        self.target = TARGETS[method.target](new_network(problem), problem.train.inputs[:2])
        self.n_random, self.n_activations = self.target.n_dims, self.target.n_activations
        start, sizes = self.target.start, self.target.sizes
        self.noise_shape = (1 if method.shared_noise else len(sizes), method.n_noise)
        hidden = HIDDEN[method.generator]
        self.generator = Generator(sizes, method.n_noise, hidden, method.initial_sd).to(start)
        scale = 1 if method.kl_reduction == "sum" else 1 / len(start)
        if method.kl_estimator == "nearest_neighbours":
            self.kl: nn.Module = NearestNeighbours(method.whole_vectors, scale)
        else:  # the training loop divides its loss by the number of examples
            self.kl = Discriminator(
                len(start),
                method.whole_vectors,
                method.discriminator_speed,
                scale=scale,
                loss_scale=len(problem.train),
            ).to(start)

    def draw_noise(self, inputs: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        """Noise of some draws of the posterior, then as many draws of a prior of unit scale."""
        n_noise, n_dims = self.noise_shape[0] * self.noise_shape[1], self.target.n_dims
        shape = (self.method.n_kl_samples, n_noise + n_dims)
        noise = self.target.start.new_empty(shape).normal_(generator=rng)
        if self.method.prior == "scale_mixture":
            prior = noise[:, n_noise:]
            wide = torch.empty_like(prior).bernoulli_(WIDE_SHARE, generator=rng)
            prior.mul_(NARROW_SD + (WIDE_SD - NARROW_SD) * wide)
        return noise

    def forward(self, inputs: torch.Tensor, noise: torch.Tensor) -> Forward:
        """Outputs under the first draw, and the estimate of the KL from all."""
        noise, prior = noise.tensor_split((noise.shape[1] - self.target.n_dims,), dim=1)
        values = self.generate(noise)
        centre = self.target.start if self.method.prior_mean == "initial" else 0.0
        posterior = (values - centre) / self.method.prior_sd
        return self.target.run(inputs, values[0]), self.kl(posterior, prior)

    def generate(self, noise: torch.Tensor) -> torch.Tensor:
        """Gains or weights ``(n, n_dims)`` from rows of noise."""
        generated = self.generator(noise.view(-1, *self.noise_shape))
        values: torch.Tensor = self.target.start + generated
        return values

    def drawer(self, rng: torch.Generator) -> Draw[torch.Tensor]:
        """One draw of all gains or weights a sample."""
        size = self.noise_shape[0] * self.noise_shape[1]
        return lambda n: self.generate(normals(n, size, rng, like=self.target.start))

    def run_with(self, inputs: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Outputs given all gains or weights."""
        return self.target.run(inputs, values)
