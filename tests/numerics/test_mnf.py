"""Multiplicative normalizing flows: moments, closed forms, and a bound that is one."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence
from torch.func import jacrev, vmap

from bhnbench.testing.problems import make_problem
from bhnbench_methods.multiplicative_layer import MultiplicativeLayer
from bhnbench_methods.multiplicative_normalizing_flow import MultiplicativeNormalizingFlow

PRIOR_SD = 0.7
LAYERS = {
    "linear": lambda: nn.Linear(3, 4),
    "no bias": lambda: nn.Linear(3, 4, bias=False),
    "conv1d": lambda: nn.Conv1d(2, 4, 3, padding=1),
    "conv2d": lambda: nn.Conv2d(2, 3, 2, stride=2),
}
INPUT_SHAPES = {"linear": (3,), "no bias": (3,), "conv1d": (2, 5), "conv2d": (2, 4, 4)}
every_layer = pytest.mark.parametrize("kind", LAYERS)


def random_layer(layer: nn.Module, **changes: float | None) -> MultiplicativeLayer:
    """In float64, with every parameter far from its start."""
    torch.manual_seed(0)
    settings = {"n_flows": 2, "width": 7, "prior_sd": PRIOR_SD, "initial_sd": 0.3, "max_sd": None}
    wrapped = MultiplicativeLayer(layer.double(), **settings | changes)
    for parameter in wrapped.parameters():
        parameter.requires_grad_(False).add_(0.3 * torch.randn_like(parameter))
    return wrapped


def noise(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def assert_mean(estimates: torch.Tensor, expected: torch.Tensor, dim: int = 0) -> None:
    """The mean over ``dim`` is what is expected, within 5 of its standard errors."""
    error = estimates.std(dim) / math.sqrt(estimates.shape[dim])
    off = (estimates.mean(dim) - expected).abs()
    assert (off <= 5 * error + 1e-9).all(), f"off by {off.max()}, standard error {error.max()}"


@every_layer
def test_moments_of_weights_under_one_z(kind: str) -> None:
    """Weights drawn under one z have the moments of N(z mu, sd^2), z an input or a filter."""
    layer = random_layer(LAYERS[kind]())
    z_noise, n = noise(layer.n_z), 20_000
    z = 1 + layer.flow(z_noise)[0]
    by_z = z if "conv" not in kind else z.view(-1, *(1,) * (layer.mean.ndim - 1))
    mean = (layer.mean * by_z).flatten()
    sd = (0.5 * layer.raw_log_variance).exp().flatten()
    if layer.bias_mean is not None:
        mean = torch.cat((mean, layer.bias_mean))
        sd = torch.cat((sd, (0.5 * layer.raw_bias_log_variance).exp()))
    rows = torch.cat((z_noise.expand(n, -1), noise(n, layer.n_weights)), dim=1)
    drawn = vmap(layer.draw)(rows)
    assert_mean(drawn, mean)
    assert_mean((drawn - mean).square(), sd.square())


@every_layer
def test_preactivations_have_the_moments_that_drawn_weights_give(kind: str) -> None:
    layer, n = random_layer(LAYERS[kind]()), 20_000
    inputs = noise(2, *INPUT_SHAPES[kind])
    z_noise = noise(layer.n_z)
    rows = torch.cat((z_noise.expand(n, -1), noise(n, layer.n_weights)), dim=1)

    def under(weights: torch.Tensor) -> torch.Tensor:
        return layer.with_weights(weights)(layer.layer, inputs)

    outputs = vmap(under)(vmap(layer.draw)(rows))
    multiplied, _ = layer.multiplied(z_noise, noise(layer.n_rest), torch.zeros(1))
    zero = torch.zeros_like(outputs[0])
    mean = replace(multiplied, noise=zero)(layer.layer, inputs)
    sd = replace(multiplied, noise=zero + 1)(layer.layer, inputs) - mean
    assert_mean(outputs, mean)
    assert_mean((outputs - mean).square(), sd.square())


@every_layer
def test_kl_under_one_z_is_that_of_gaussians(kind: str) -> None:
    layer = random_layer(LAYERS[kind](), max_sd=0.5)
    offset = noise(layer.n_z)
    q = layer.given_z(offset)
    expected = kl_divergence(Normal(q.weight, q.weight_variance.sqrt()), Normal(0, PRIOR_SD)).sum()
    if q.bias is not None:
        biases = Normal(q.bias, q.bias_variance.sqrt())
        expected += kl_divergence(biases, Normal(0, PRIOR_SD)).sum()
    torch.testing.assert_close(q.kl, expected)


@every_layer
def test_density_of_z_is_that_of_its_change_of_variables(kind: str) -> None:
    """log q(z) - log r(z | w) with log-determinants of autograd's Jacobians."""
    layer = random_layer(LAYERS[kind]())
    z_noise, summary_noise = noise(layer.n_z), noise(layer.n_rest, seed=2)
    offset = layer.flow(z_noise)[0]
    q = layer.given_z(offset)

    def log_det(flow: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.slogdet(jacrev(lambda e: flow(e)[0])(x)).logabsdet

    log_q = Normal(0, 1).log_prob(z_noise).sum() - log_det(layer.flow, z_noise)
    equation = "oi,i->o" if "conv" not in kind else "oi,o->i"  # c has one number for each z
    argument = torch.einsum(equation, q.weight.flatten(1), layer.summary)
    variance = torch.einsum(equation, q.weight_variance.flatten(1), layer.summary**2)
    seen = argument + variance.sqrt() * summary_noise
    mean, log_sd = layer.slopes * seen.tanh().mean()
    latent = Normal(mean, log_sd.exp()).log_prob(layer.auxiliary_flow(offset)[0]).sum()
    log_r = latent + log_det(layer.auxiliary_flow, offset)
    _, bound = layer.multiplied(z_noise, summary_noise, torch.zeros(1))
    torch.testing.assert_close(bound, q.kl + log_q - log_r)


def test_the_auxiliary_model_starts_as_the_density_of_z() -> None:
    """So the bound starts as the expected KL of Gaussians."""
    torch.manual_seed(0)
    layer = MultiplicativeLayer(
        nn.Linear(4, 3).double(), n_flows=2, width=9, prior_sd=1.0, initial_sd=0.1, max_sd=None
    )
    z_noise = noise(layer.n_z)
    _, bound = layer.multiplied(z_noise, noise(layer.n_rest), torch.zeros(1))
    kl = layer.given_z(layer.flow(z_noise)[0]).kl
    torch.testing.assert_close(bound, kl, rtol=0, atol=1e-2)


@pytest.mark.parametrize("slope", [0.0, 2.0])
def test_bound_is_above_the_kl_found_by_integration(slope: float) -> None:
    """One weight: q(w) = int N(w; z mu, sd^2) N(z; m, s^2) dz is N(m mu, sd^2 + (s mu)^2).

    The bound is E[log q(w, z) - log p(w) - log r(z | w)], all of it integrated over a grid; the
    estimates must agree with it, and it must be above the KL.
    """
    layer = MultiplicativeLayer(
        nn.Linear(1, 1, bias=False).double(),
        n_flows=0,
        width=1,
        prior_sd=PRIOR_SD,
        initial_sd=0.2,
        max_sd=None,
    ).requires_grad_(False)
    layer.mean.fill_(0.8)
    layer.summary.fill_(1.3)
    layer.slopes.fill_(slope)
    z_mean, z_sd, sd = 1.0, math.sqrt(0.1), 0.2
    marginal = Normal(0.8 * z_mean, math.hypot(sd, 0.8 * z_sd))
    kl = kl_divergence(marginal, Normal(0.0, PRIOR_SD)).item()

    z, w = torch.linspace(-2.5, 4.5, 1500).double(), torch.linspace(-3, 5, 1600).double()
    z, w = torch.meshgrid(z, w, indexing="ij")
    log_q = Normal(z_mean, z_sd).log_prob(z) + Normal(0.8 * z, sd).log_prob(w)
    seen = (1.3 * w).tanh()
    latent = Normal(slope * seen, (slope * seen).exp()).log_prob((z - 1) / z_sd)
    log_ratio = log_q - Normal(0.0, PRIOR_SD).log_prob(w) - (latent - math.log(z_sd))
    cell = (z[1, 0] - z[0, 0]) * (w[0, 1] - w[0, 0])
    exact = (log_q.exp() * log_ratio).sum().item() * cell.item()
    assert exact > kl + 0.01

    def estimate(z_noise: torch.Tensor, summary_noise: torch.Tensor) -> torch.Tensor:
        return layer.multiplied(z_noise, summary_noise, torch.zeros(1))[1]

    n = 50_000
    estimates = vmap(estimate)(noise(n, 1), noise(n, 1, seed=2))
    assert_mean(estimates, torch.tensor(exact, dtype=torch.float64))


@pytest.mark.parametrize("max_sd", [0.05, 2.0])
def test_max_sd_bounds_the_standard_deviation(max_sd: float) -> None:
    layer = random_layer(nn.Linear(2, 2), max_sd=max_sd)
    layer.raw_log_variance.copy_(torch.tensor([[-24.0, -2.0], [0.0, 60.0]]))
    sd = layer.given_z(noise(2)).weight_variance.sqrt()
    assert (sd <= max_sd * (1 + 1e-12)).all()
    assert sd[0, 0].item() == pytest.approx(math.exp(-12), rel=1e-3)
    assert sd[1, 1].item() == pytest.approx(max_sd)


def test_one_sample_is_one_function() -> None:
    """Rows of a sample share their weights: asked for one by one, they are the same."""
    problem = make_problem("images", dtype=torch.float64)
    torch.manual_seed(0)
    model = MultiplicativeNormalizingFlow(initial_sd=0.3).make_model(problem).eval()
    inputs = problem.validation.inputs

    def rng() -> torch.Generator:
        return torch.Generator().manual_seed(5)

    together = model.sample(inputs, 3, rng=rng())
    apart = [model.sample(row, 3, rng=rng()) for row in inputs.split(1)]
    torch.testing.assert_close(together, torch.cat(apart, dim=1))
