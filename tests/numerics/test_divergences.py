"""KL divergences of Gaussian weights, against quadrature, Monte Carlo and autograd."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from scipy.integrate import quad
from scipy.special import dawsn
from torch.distributions import Normal
from torch.func import vmap

from bhnbench_methods import divergences
from bhnbench_methods.divergences import (
    additive_log_uniform_kl,
    best_prior_sd,
    dropout_kl,
    gaussian_kl,
    log_uniform_kl,
)

F64 = torch.float64


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=F64, generator=rng(seed))


def exact_log_uniform_kl(log_alpha: float) -> float:
    """KL to the log-uniform prior: ``2 int_0^z D``, D Dawson's integral, ``z = (2 alpha)^-1/2``.

    Its derivative in z is the one of a log moment of the noncentral chi-squared distribution.
    """
    return quad(lambda t: 2 * dawsn(t), 0, math.exp(-log_alpha / 2) / math.sqrt(2), limit=200)[0]


def integrated_log_uniform_kl(log_alpha: float) -> float:
    """By its definition: ``E log|eps| - log(alpha) / 2 + constant``, eps ~ N(1, alpha)."""
    sd = math.exp(log_alpha / 2)

    def integrand(z: float) -> float:
        return math.log(abs(1 + sd * z)) * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

    pieces = [-12.0, *([-1 / sd] if sd > 1 / 12 else []), 12.0]
    expected_log = sum(quad(integrand, a, b, limit=200)[0] for a, b in pairwise(pieces))
    euler_gamma = 0.5772156649015329
    return expected_log - log_alpha / 2 + (euler_gamma + math.log(2)) / 2


GRID = torch.linspace(-8, 8, 81, dtype=F64)


@pytest.mark.parametrize("log_alpha", [-8.0, -4.0, -1.0, 0.0, 3.0, 8.0])
def test_the_exact_kl_is_the_one_of_its_definition(log_alpha: float) -> None:
    exact = exact_log_uniform_kl(log_alpha)
    assert exact == pytest.approx(integrated_log_uniform_kl(log_alpha), abs=1e-6)


def test_log_uniform_kl_is_within_a_hundredth_of_a_nat() -> None:
    for log_alpha in GRID:
        exact = exact_log_uniform_kl(log_alpha.item())
        assert log_uniform_kl(log_alpha).item() == pytest.approx(exact, abs=0.01)


def test_dropout_kl_is_close_up_to_its_constant() -> None:
    grid = GRID[GRID <= 0]
    errors = [dropout_kl(la).item() - exact_log_uniform_kl(la.item()) for la in grid]
    assert max(errors) - min(errors) < 0.045  # so much is the published cubic's own
    assert max(map(abs, errors)) < 0.045


def test_log_uniform_kl_is_that_of_monte_carlo_up_to_a_constant() -> None:
    """Differences between alphas, of samples of ``log q(w) + log|w|``."""
    n = 200_000

    def sampled(log_alpha: float) -> torch.Tensor:
        q = Normal(torch.tensor(1.0, dtype=F64), math.exp(log_alpha / 2))
        w = q.mean + q.stddev * normal(n)
        return q.log_prob(w) + w.abs().log()

    for low, high in ((-4.0, 0.0), (-1.0, 3.0)):
        difference = sampled(low) - sampled(high)
        error = difference.std().item() / math.sqrt(n)
        pair = log_uniform_kl(torch.tensor([low])) - log_uniform_kl(torch.tensor([high]))
        assert pair.item() == pytest.approx(difference.mean().item(), abs=4 * error + 0.02)


@pytest.fixture(params=["plain", "function"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Gaussian KL of small tensors, and that of large ones."""
    max_plain = 2**13 if request.param == "plain" else 0
    monkeypatch.setattr(divergences, "MAX_PLAIN", max_plain)


@pytest.mark.usefixtures("path")
def test_gaussian_kl_is_that_of_torch() -> None:
    mean, log_variance = normal(7, 3), normal(7, 3, seed=1)
    variance, kl = gaussian_kl(mean, log_variance, 0.3)
    posterior = Normal(mean, (log_variance / 2).exp())
    expected = torch.distributions.kl_divergence(posterior, Normal(0.0, 0.3))
    torch.testing.assert_close(kl, expected.sum())
    torch.testing.assert_close(variance, posterior.variance)


@pytest.mark.usefixtures("path")
def test_gaussian_kl_is_that_of_monte_carlo() -> None:
    mean, log_variance, n = normal(5), normal(5, seed=1) - 1, 100_000
    q = Normal(mean, (log_variance / 2).exp())
    w = q.mean + q.stddev * normal(n, 5, seed=2)
    sampled = (q.log_prob(w) - Normal(0.0, 0.7).log_prob(w)).sum(1)
    _, kl = gaussian_kl(mean, log_variance, 0.7)
    error = sampled.std().item() / math.sqrt(n)
    assert kl.item() == pytest.approx(sampled.mean().item(), abs=4 * error)


@pytest.mark.usefixtures("path")
def test_the_best_prior_has_the_smallest_kl() -> None:
    mean, log_variance = 0.2 * normal(50), normal(50, seed=1) - 4
    variance, kl = gaussian_kl(mean, log_variance, None)
    best = best_prior_sd(mean, variance).item()
    torch.testing.assert_close(kl, gaussian_kl(mean, log_variance, best)[1])
    for other in (0.98 * best, 1.02 * best):
        assert gaussian_kl(mean, log_variance, other)[1] > kl


def test_additive_kl_is_the_one_of_log_alpha() -> None:
    theta, log_variance = normal(400), 4 * normal(400, seed=1)
    theta[:2] = 0
    variance, kl, log_alpha = additive_log_uniform_kl(theta, log_variance)
    free = log_variance - theta.square().log()
    torch.testing.assert_close(log_alpha, free.clamp(-8, 8))
    assert 0.1 < (free.abs() > 8).float().mean() < 0.9
    torch.testing.assert_close(variance, log_alpha.exp() * theta.square())
    torch.testing.assert_close(kl, log_uniform_kl(log_alpha))


DIFFERENTIABLE: dict[str, Callable[..., tuple[torch.Tensor, ...]]] = {
    "gaussian": lambda a, b: gaussian_kl(a, b, 0.3),
    "empirical bayes": lambda a, b: gaussian_kl(a, b, None),
    "log-uniform": lambda a, b: additive_log_uniform_kl(a, b)[:2],
}


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_of_divergences(name: str) -> None:
    """Against finite differences, alone and under vmap; the wide scale reaches both clips."""
    function = DIFFERENTIABLE[name]
    inputs = normal(3, 6).requires_grad_(), (4 * normal(3, 6, seed=1)).requires_grad_()
    if name != "log-uniform":
        inputs = inputs[0], (normal(3, 6, seed=1) - 1).requires_grad_()
        assert torch.autograd.gradgradcheck(function, inputs)
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradcheck(vmap(function), inputs)
    torch.testing.assert_close(
        vmap(function)(*inputs)[1],
        torch.stack([function(a, b)[1] for a, b in zip(*inputs, strict=True)]),
    )


@pytest.mark.parametrize("prior_sd", [0.3, None])
def test_small_and_large_tensors_have_the_same_gaussian_kl(
    prior_sd: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values and gradients, on both sides of the size at which the way to them changes."""
    inputs = normal(4, 6).requires_grad_(), (normal(4, 6, seed=1) - 1).requires_grad_()
    results = []
    for max_plain in (23, 24):
        monkeypatch.setattr(divergences, "MAX_PLAIN", max_plain)
        variance, kl = gaussian_kl(*inputs, prior_sd)
        loss = (variance * normal(4, 6, seed=2)).sum() + 3 * kl
        results.append([variance, kl, *torch.autograd.grad(loss, inputs)])
    torch.testing.assert_close(*results)


def test_a_weight_of_zero_has_a_finite_gradient() -> None:
    theta, log_variance = torch.zeros(2).requires_grad_(), torch.full((2,), -9.0).requires_grad_()
    variance, kl, _ = additive_log_uniform_kl(theta, log_variance)
    gradients = torch.autograd.grad(variance.sum() + kl, (theta, log_variance))
    for gradient in gradients:
        torch.testing.assert_close(gradient, torch.zeros(2))
