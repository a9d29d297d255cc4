"""Stochastic-gradient MCMC: its chains on a Gaussian, and exact posteriors."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from bhnbench.contract import Problem, Split
from bhnbench.likelihoods import Gaussian
from bhnbench_methods.cyclical_sghmc import CyclicalSGHMC
from bhnbench_methods.fitting import TrainedMethod
from bhnbench_methods.sgld import SGLD

NOISE_SD = 1.0
N, PRIOR_PRECISION = 12, 2.0
N_FITS, N_UNITS = 16, 16
N_CHAINS = N_FITS * N_UNITS
LEARNING_RATES = {False: 0.05, True: 0.01}  # with a preconditioner or not
RMS_FLOOR = 1e-3


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class LinearRegression(nn.Module):
    """Two weights a unit, no bias, noise of known scale: each unit has a posterior of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Linear(2, N_UNITS, bias=False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        mean = self.weights(features)
        raw_scale = math.log(math.expm1(NOISE_SD - 1e-6))
        return torch.cat((mean, torch.full_like(mean, raw_scale)), dim=-1)


def regression(epochs: int) -> Problem:
    features = torch.randn(N, 2, dtype=torch.float64, generator=rng(3))
    features[:, 1] = 0.8 * features[:, 0] + 0.6 * features[:, 1]  # correlated posterior
    noise = torch.randn(N, 1, dtype=torch.float64, generator=rng(4))
    targets = features @ torch.tensor([[1.0], [0.5]], dtype=torch.float64) + NOISE_SD * noise
    return Problem(
        train=Split(features, targets.repeat(1, N_UNITS)),
        validation=Split(features[:0], targets[:0].repeat(1, N_UNITS)),
        likelihood=Gaussian(),
        network=LinearRegression,
        epochs=epochs,
        batch_size=N,
    )


def posterior(problem: Problem) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and covariance in closed form; a unit has two inputs, so the precision is twofold."""
    features, targets = problem.train.inputs, problem.train.targets[:, :1]
    precision = features.mT @ features / NOISE_SD**2 + 2 * PRIOR_PRECISION * torch.eye(2)
    covariance = torch.linalg.inv(precision)
    return (covariance @ features.mT @ targets / NOISE_SD**2).squeeze(1), covariance


def chains(method: TrainedMethod, problem: Problem) -> torch.Tensor:
    """Kept weights of independent chains, ``(N_CHAINS, n_kept, 2)``: the units of every fit."""
    fitted = method.fit_many(
        [problem] * N_FITS,
        rngs=[rng(seed) for seed in range(N_FITS)],
        reports=[lambda step, metrics: None] * N_FITS,
        warm_starts=[None] * N_FITS,
    )
    return torch.cat([model.kept["weights.weight"].transpose(0, 1) for model in fitted])


def check(weights: torch.Tensor, mean: torch.Tensor, covariance: torch.Tensor) -> None:
    """Chains are independent, so their spread gives the standard error, autocorrelation or not.

    A variance that is a tenth off is at least four of them off.
    """
    sds = covariance.diagonal().sqrt()
    means = weights.mean(1)
    error = means.std(0) / math.sqrt(N_CHAINS)
    assert (error < 0.025 * sds).all()
    assert ((means.mean(0) - mean).abs() < 4 * error).all()
    centred = weights - mean
    seconds = torch.einsum("cki,ckj->cij", centred, centred) / weights.shape[1]
    error = seconds.std(0) / math.sqrt(N_CHAINS)
    assert (error < 0.025 * torch.outer(sds, sds)).all()
    assert ((seconds.mean(0) - covariance).abs() < 4 * error).all()


def excess(method: TrainedMethod, covariance: torch.Tensor) -> torch.Tensor:
    """``lr G K / (2 N)``, with K the precision: what a constant step adds to the covariance."""
    precision, scale = torch.linalg.inv(covariance), torch.eye(2, dtype=torch.float64)
    if method.preconditioned:  # gradients of the posterior have the covariance K temperature
        rms = (method.temperature * precision.diagonal()).sqrt() / N
        scale = torch.diag(1 / (RMS_FLOOR + rms))
    return method.learning_rate / (2 * N) * scale @ precision


@pytest.mark.parametrize(
    ("method", "epochs"),
    [
        (SGLD(n_kept=500, burn_in=0.2), 2500),
        (CyclicalSGHMC(n_cycles=2, n_kept_per_cycle=250, exploration=0.3), 1500),
    ],
    ids=["sgld", "cyclical_sghmc"],
)
@pytest.mark.parametrize("preconditioned", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.2])
def test_linear_regression_has_its_exact_posterior(
    method: TrainedMethod, epochs: int, temperature: float, preconditioned: bool
) -> None:
    """Mean and full covariance, the posterior's own at temperature 1."""
    problem = regression(epochs)
    mean, covariance = posterior(problem)
    correlation = covariance[0, 1] / covariance.diagonal().prod().sqrt()
    assert correlation < -0.5  # or a factorised posterior would do
    method = replace(
        method,
        learning_rate=LEARNING_RATES[preconditioned],
        prior_precision=PRIOR_PRECISION,
        preconditioned=preconditioned,
        temperature=temperature,
    )
    weights = chains(method, problem)
    if isinstance(method, SGLD):  # the steps of the other fall to zero
        step = excess(method, covariance)
        assert torch.linalg.eigvals(step).real.max() < 0.08
        covariance = covariance @ torch.linalg.inv(torch.eye(2) - step)
    check(weights, mean, temperature * covariance)
