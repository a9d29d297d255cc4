"""Stochastic-gradient MCMC with minibatches: how much the noise of their gradients heats a chain.

The heat ``lr G s^2 N / (2 friction)`` of the docstrings is that of independent minibatches. Those
of an epoch share out its examples, so that their noise sums to zero over an epoch, and a chain
that moves little in an epoch is heated less.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from bhnbench.contract import Problem, Split
from bhnbench.likelihoods import Gaussian
from bhnbench_methods.cyclical_sghmc import CyclicalSGHMC
from bhnbench_methods.langevin_method import LangevinMethod
from bhnbench_methods.optimisers import Langevin, LangevinDynamics
from bhnbench_methods.sgld import SGLD

F64 = torch.float64
N, PRIOR_PRECISION = 128, 16.0
PRECISION = N + PRIOR_PRECISION  # of the posterior: inputs are +-1, the noise has unit scale
N_FITS, N_UNITS = 8, 24
RMS_FLOOR = 1e-3


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Slopes(nn.Module):
    """One weight a unit and noise of unit scale: each unit is a chain with data of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.slopes = nn.Linear(1, N_UNITS, bias=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        mean = self.slopes(inputs)
        return torch.cat((mean, torch.full_like(mean, math.log(math.expm1(1 - 1e-6)))), dim=-1)


def regression(batch_size: int, n_steps: int) -> Problem:
    """With inputs of +-1 the noise of a minibatch's gradient is the same for all weights.

    The residuals of every unit are standardised, and so its gradient of one example has variance
    one.
    """
    signs = torch.randn(N, 1, dtype=F64, generator=rng(1)).sign()
    residuals = torch.randn(N, N_UNITS, dtype=F64, generator=rng(2))
    residuals = (residuals - residuals.mean(0)) / residuals.std(0, correction=0)
    targets = signs * (1 + residuals)
    none = Split(signs[:0], targets[:0])
    epochs = n_steps * batch_size // N
    return Problem(Split(signs, targets), none, Gaussian(), Slopes, epochs, batch_size)


def gradient_variance(batch_size: int) -> float:
    """``s^2``: of the mean of some of N numbers of variance one, drawn without replacement."""
    return (N - batch_size) / (N - 1) / batch_size


def expected(method: LangevinMethod, problem: Problem, scale: float) -> tuple[float, float, float]:
    """Variance over that of the posterior: without minibatches, their part, and the formula's.

    A chain on a Gaussian is linear in its noise. ``response`` is what a unit of noise in each
    step does to the weight; minibatches of one epoch have the covariance ``-s^2 / (m - 1)``.
    """
    n_batches = N // problem.batch_size
    n_steps = problem.epochs * n_batches
    recipe = method.recipe()
    how = recipe.langevin
    assert how is not None
    kept = recipe.samples_at(n_steps)
    rates = [scale * recipe.learning_rate_at(step + 1, n_steps) for step in range(n_steps)]
    lrs = torch.tensor(rates, dtype=F64)
    hot = torch.tensor([how.noise_schedule(step / n_steps) for step in range(n_steps)])
    velocity, weight = torch.zeros(2, n_steps, dtype=F64)
    responses = []
    for step, rate in enumerate(rates):
        velocity = (1 - how.friction) * velocity - rate * PRECISION / N * weight
        velocity[step] += 1
        weight = weight + velocity
        if step + 1 in kept:
            responses.append(weight)
    response = torch.stack(responses)
    langevin = response.square() @ (2 * how.friction * lrs * how.temperature * hot / N)
    of_epochs = (response * lrs).unflatten(1, (-1, n_batches))
    spread = of_epochs.square().sum(-1) - of_epochs.sum(-1).square() / n_batches
    s2 = gradient_variance(problem.batch_size)
    minibatch = s2 * n_batches / (n_batches - 1) * spread.sum(-1)
    formula = lrs[torch.tensor(kept) - 1] * s2 * N / (2 * how.friction)
    means = [x.mean().item() for x in (langevin * PRECISION, minibatch * PRECISION, formula)]
    return means[0], means[1], means[2]


def standardised(method: LangevinMethod, problem: Problem) -> torch.Tensor:
    """Kept weights ``(N_FITS, n_kept, N_UNITS)``, less the posterior's mean, over its sd."""
    fitted = method.fit_many(
        [problem] * N_FITS,
        rngs=[rng(seed) for seed in range(N_FITS)],
        reports=[lambda step, metrics: None] * N_FITS,
        warm_starts=[None] * N_FITS,
    )
    weights = torch.stack([model.kept["slopes.weight"].squeeze(-1) for model in fitted])
    mean = (problem.train.inputs * problem.train.targets).sum(0) / PRECISION
    return (weights - mean) * math.sqrt(PRECISION)


# Steps of a learning rate at which a chain relaxes in several epochs, or in a tenth of one.
SLOW = {"batch_size": 16, "n_steps": 1280}
FAST = {"batch_size": 1, "n_steps": 1280}
METHODS = {
    "sgld": SGLD(n_kept=400, burn_in=0.2, prior_precision=PRIOR_PRECISION),
    "cyclical_sghmc": CyclicalSGHMC(
        n_cycles=2, n_kept_per_cycle=200, exploration=0.2, prior_precision=PRIOR_PRECISION
    ),
}
RATES = {  # times G and the curvature of the mean loss, which is about one
    ("sgld", "slow"): 0.04,
    ("sgld", "fast"): 0.08,
    ("cyclical_sghmc", "slow"): 0.015,
    ("cyclical_sghmc", "fast"): 0.02,
}


@pytest.mark.parametrize("preconditioned", [False, True], ids=["plain", "preconditioned"])
@pytest.mark.parametrize("name", METHODS)
def test_slow_chains_have_the_exact_posterior_in_spite_of_minibatches(
    name: str, preconditioned: bool
) -> None:
    """Mean and variance within four standard errors, each at most 0.03 of the variance."""
    problem = regression(**SLOW)
    scale = 1 / (RMS_FLOOR + math.sqrt(gradient_variance(16))) if preconditioned else 1.0
    rate = RATES[name, "slow"] / scale
    method = replace(METHODS[name], learning_rate=rate, preconditioned=preconditioned)
    without, heat, formula = expected(method, problem, scale)
    assert without + heat < 1.06 < 1.12 < 1 + formula
    check(standardised(method, problem), without + heat, max_error=0.03)


@pytest.mark.parametrize("preconditioned", [False, True], ids=["plain", "preconditioned"])
@pytest.mark.parametrize("name", METHODS)
def test_fast_chains_are_heated_nearly_as_the_formula_says(
    name: str, preconditioned: bool
) -> None:
    """Several times as hot as the posterior: what ``learning_rate`` is to be lowered for."""
    problem = regression(**FAST)
    scale = 1 / (RMS_FLOOR + math.sqrt(gradient_variance(1))) if preconditioned else 1.0
    rate = RATES[name, "fast"] / scale
    method = replace(METHODS[name], learning_rate=rate, preconditioned=preconditioned)
    without, heat, formula = expected(method, problem, scale)
    assert formula > 2
    assert 0.75 * formula < heat < formula
    # r is the root of a mean over some 100 steps, and sees how far the chain is from the mode as
    # well: it is a few per cent larger than the s that ``scale`` is made of.
    check(
        standardised(method, problem),
        without + heat,
        max_error=0.03 * (without + heat),
        slack=0.05 * heat if preconditioned else 0.0,
    )


def check(deviations: torch.Tensor, variance: float, max_error: float, slack: float = 0.0) -> None:
    """Chains are nearly independent: in a fit they share the order of data of their own.

    So their spread gives the standard error of mean and variance, autocorrelation or not.
    """
    n_chains = N_FITS * N_UNITS
    means = deviations.mean(1).flatten()
    error = means.std().item() / math.sqrt(n_chains)
    assert error < 0.05 * math.sqrt(variance)
    assert abs(means.mean().item()) < 4 * error
    variances = deviations.square().mean(1).flatten()
    error = variances.std().item() / math.sqrt(n_chains)
    assert error < max_error
    assert variances.mean().item() == pytest.approx(variance, abs=4 * error + slack)


@pytest.mark.parametrize("friction", [1.0, 0.2])
@pytest.mark.parametrize("preconditioned", [False, True], ids=["plain", "preconditioned"])
def test_independent_noise_of_gradients_adds_the_temperature_of_the_formula(
    friction: float, preconditioned: bool
) -> None:
    """``T + lr G s^2 N / (2 friction)``, and what a step adds: both are exact for a fixed G."""
    n_chains, n_steps, n_examples, noise_sd, curvature = 20_000, 300, 50, 0.4, 1.5
    rate, temperature = 0.02, 0.7
    flat = torch.zeros(1, n_chains, dtype=F64)
    grad = torch.zeros_like(flat)
    how = Langevin(
        friction=friction,
        temperature=temperature,
        preconditioned=preconditioned,
        adapts=lambda progress: float(progress == 0),
    )
    dynamics = LangevinDynamics(flat, grad, [rng(1)], n_examples, how)
    scale = 1.0
    if preconditioned:  # G is fixed by a first step that leads nowhere
        grad.fill_(0.3)
        scale = 1 / (RMS_FLOOR + 0.3)
        dynamics.step(0.0, 0.0)
    stream = rng(2)
    for step in range(1, n_steps):
        noise = torch.randn(1, n_chains, dtype=F64, generator=stream)
        grad.copy_(curvature * flat + noise_sd * noise)
        dynamics.step(rate, step / n_steps)
    heat = rate * scale * noise_sd**2 * n_examples / (2 * friction)
    assert heat > 0.05
    step_size = rate * scale * curvature / (2 * (2 - friction))
    variance = (temperature + heat) / (n_examples * curvature) / (1 - step_size)
    assert flat.var().item() == pytest.approx(variance, rel=4 * math.sqrt(2 / n_chains))
