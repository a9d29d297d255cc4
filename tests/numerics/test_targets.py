"""What a hypernetwork generates, and posteriors over all weights of small networks."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from bhnbench.contract import Problem, Split
from bhnbench.likelihoods import Gaussian
from bhnbench.testing.problems import KINDS, make_problem
from bhnbench_methods.bayesian_hypernet import BayesianHypernet, _HypernetModel
from bhnbench_methods.models import new_network
from bhnbench_methods.targets import MAX_WEIGHTS, TARGETS, Weights

F64 = torch.float64


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fit_seeds(method: BayesianHypernet, problem: Problem, n: int) -> list[_HypernetModel]:
    """The same problem with ``n`` seeds, as one computation."""
    return method.fit_many(
        [problem] * n,
        rngs=[rng(seed) for seed in range(n)],
        reports=[lambda step, metrics: None] * n,
        warm_starts=[None] * n,
    )


def regression(
    network: partial[nn.Module], inputs: torch.Tensor, targets: torch.Tensor
) -> Problem:
    nothing = Split(inputs[:0], targets[:0])
    return Problem(Split(inputs, targets), nothing, Gaussian(), network, 1, len(inputs))


def raw_scale(sd: float) -> float:
    """What the Gaussian likelihood reads as this standard deviation."""
    return math.log(math.expm1(sd - 1e-6))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("target", TARGETS)
def test_the_start_is_the_network_itself(target: str, kind: str) -> None:
    problem = make_problem(kind, dtype=F64)
    inputs = problem.train.inputs
    torch.manual_seed(0)
    network = new_network(problem).eval()
    expected = network(inputs)
    made = TARGETS[target](network, inputs[:2]).eval()
    assert made.n_dims == len(made.start) == sum(made.sizes)
    torch.testing.assert_close(made.run(inputs, made.start), expected)
    draws = torch.stack([made.start, 2 * made.start])
    one_by_one = torch.stack([made.run(inputs, values) for values in draws])
    torch.testing.assert_close(made.run_many(inputs, draws), one_by_one)


def test_weights_are_in_the_order_of_the_parameters() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    inputs = torch.randn(5, 2, generator=rng())
    values = torch.randn(13, generator=rng(1))
    outputs = Weights(network, inputs).run(inputs, values)
    first, bias, second = values[:6].view(3, 2), values[6:9], values[9:12]
    expected = (inputs @ first.mT + bias).tanh() @ second[:, None] + values[12]
    torch.testing.assert_close(outputs, expected)


class WithNoise(nn.Module):
    """A line with a learned noise and an offset that is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(1, 1)
        self.raw_scale = nn.Parameter(torch.zeros(1))
        self.offset = nn.Parameter(torch.full((1,), 0.25), requires_grad=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        mean = self.line(inputs) + self.offset
        return torch.cat((mean, self.raw_scale.expand_as(mean)), dim=-1)


def test_bare_parameters_are_generated_and_frozen_ones_kept() -> None:
    problem = replace(make_problem("regression", epochs=5), network=WithNoise)
    (fitted,) = fit_seeds(BayesianHypernet(target="weights", width=8), problem, 1)
    assert fitted.target.n_dims == 3
    assert fitted.target.network.offset.item() == 0.25
    noise = fitted.sample(problem.train.inputs, 4, rng=rng())[:, :, 1]
    assert (noise == noise[:, :1]).all()  # one function a sample
    assert len(noise[:, 0].unique()) == 4


def test_every_draw_moves_the_statistics_of_batch_normalisation() -> None:
    problem = make_problem("images", epochs=1)
    method = BayesianHypernet(target="weights", n_draws=3, width=8)
    (fitted,) = fit_seeds(method, problem, 1)
    n_steps = len(problem.train) // problem.batch_size
    assert fitted.target.network[1].num_batches_tracked == 3 * n_steps


def test_supports() -> None:
    problem = make_problem("regression")
    method = BayesianHypernet(target="weights")
    assert method.supports(problem) is None
    fits = replace(problem, network=lambda: nn.Linear(1, MAX_WEIGHTS // 2))
    assert method.supports(fits) is None
    assert method.supports(replace(problem, network=lambda: nn.Linear(1, 5001))) == (
        "target weights needs a network of at most 10000 parameters, but it has 10002; "
        "use target gains"
    )
    assert method.supports(replace(problem, network=nn.Identity)) == (
        "it needs a parameter to learn, but the network has none"
    )
    one = partial(nn.Linear, 1, 1, bias=False)
    assert method.supports(replace(problem, network=one)) == (
        "flow realnvp needs two weights or more, but the network has one"
    )
    affine = replace(method, flow="affine")
    assert affine.supports(replace(problem, network=one)) is None


@pytest.mark.parametrize("target", TARGETS)
def test_data_dependent_initialisation_standardises(target: str) -> None:
    problem = make_problem("classification", n=64, dtype=F64)
    model = _HypernetModel(problem, BayesianHypernet(target=target, data_init=True))
    outputs = model.target.run(problem.train.inputs, model.target.start)
    sd, mean = torch.std_mean(outputs, dim=0, correction=0)
    torch.testing.assert_close(sd, torch.ones_like(sd))
    torch.testing.assert_close(mean, torch.zeros_like(mean))


class KnownNoise(nn.Module):
    """A linear function of the inputs, with noise of a known size."""

    def __init__(self, n_inputs: int, noise_sd: float) -> None:
        super().__init__()
        self.line = nn.Linear(n_inputs, 1, bias=False)
        self.raw_scale = raw_scale(noise_sd)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        mean: torch.Tensor = self.line(inputs)
        return torch.cat((mean, torch.full_like(mean, self.raw_scale)), dim=-1)


@pytest.mark.parametrize("flow", ["realnvp", "iaf", "spline"])
def test_linear_regression_has_its_exact_posterior(flow: str) -> None:
    """Mean and covariance, within a tenth of their scale and the samples' four standard errors.

    The tenth is the fit's: over five seeds the means, with the samples' error, were within 0.11.

    Posterior precision L = X'X / sd^2 + I; mean L^-1 X'y / sd^2. The entry (i, j) of a sample
    covariance of Gaussians has variance (S_ii S_jj + S_ij^2) / n.
    """
    n, noise_sd, n_samples = 12, 0.5, 2000
    features = torch.randn(n, 3, dtype=F64, generator=rng(3))
    features[:, 1] = 0.9 * features[:, 0] + 0.4 * features[:, 1]
    noise = torch.randn(n, 1, dtype=F64, generator=rng(4))
    targets = features @ torch.tensor([[1.0], [0.5], [-1.0]], dtype=F64) + noise_sd * noise
    problem = regression(partial(KnownNoise, 3, noise_sd), features, targets)
    method = BayesianHypernet(
        target="weights",
        flow=flow,
        n_coupling_layers=3,
        width=16,
        initial_sd=0.5,
        n_draws=32,
        learning_rate=0.01,
        lr_decay=True,
    )
    (fitted,) = fit_seeds(method, replace(problem, epochs=1000), 1)
    eps = torch.randn(n_samples, 3, dtype=F64, generator=rng(5))
    values, _ = fitted.values_and_kl(eps)

    precision = features.mT @ features / noise_sd**2 + torch.eye(3)
    covariance = torch.linalg.inv(precision)
    mean = covariance @ (features.mT @ targets / noise_sd**2).squeeze()
    correlation = covariance / (covariance.diagonal()[:, None] * covariance.diagonal()).sqrt()
    assert correlation.tril(-1).abs().max() > 0.5  # or a factorised posterior would do
    variances = covariance.diagonal()
    mean_error = (variances / n_samples).sqrt()
    assert ((values.mean(0) - mean).abs() < 0.1 * variances.sqrt() + 4 * mean_error).all()
    entry_error = ((variances[:, None] * variances + covariance.square()) / n_samples).sqrt()
    scales = (variances[:, None] * variances).sqrt()
    assert ((values.mT.cov() - covariance).abs() < 0.1 * scales + 4 * entry_error).all()


def test_annealing_ends_with_the_weights_of_the_elbo() -> None:
    """Each term starts at a hundredth, or nothing, of its weight and has all of it at the end."""
    recipe = BayesianHypernet(likelihood_annealing=True).recipe()
    weights = [recipe.kl_weight_at(epoch, 100) for epoch in range(1, 101)]
    assert weights[0] == pytest.approx(100)  # all that Adam sees is the ratio of the two terms
    assert weights[40] == pytest.approx(10)
    assert weights[:81] == sorted(weights[:81], reverse=True)
    assert set(weights[80:]) == {1.0}
    both = BayesianHypernet(likelihood_annealing=True, kl_annealing=True).recipe()
    assert both.kl_weight_at(26, 100) == pytest.approx(0.5 * recipe.kl_weight_at(26, 100))


class Product(nn.Module):
    """Mean ``a * b * x``: whatever the data, (a, b) and (-a, -b) are equally likely."""

    def __init__(self, noise_sd: float) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))
        self.raw_scale = raw_scale(noise_sd)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = self.a * self.b * x
        return torch.cat((mean, torch.full_like(mean, self.raw_scale)), dim=-1)


def test_both_modes_of_the_identity_are_found() -> None:
    """With every one of five seeds; and ``ab`` is about as near to one as in the posterior.

    The posterior is a density on the plane, exp(-(targets - abx)^2 / 2sd^2 - (a^2 + b^2) / 2);
    its quantiles of |ab - 1| come from a grid.
    """
    noise_sd = 0.5
    x = torch.linspace(-1.5, 1.5, 10)[:, None]
    method = BayesianHypernet(
        target="weights",
        n_coupling_layers=6,
        width=100,
        initial_sd=1.0,
        n_draws=32,
        likelihood_annealing=True,
        learning_rate=0.01,
        lr_decay=True,
    )
    problem = replace(regression(partial(Product, noise_sd), x, x), epochs=800)
    grid = torch.linspace(-4, 4, 801)
    product = grid[:, None] * grid
    misfit = x.square().sum() * (product - 1).square() / noise_sd**2
    density = (-0.5 * (misfit + grid[:, None].square() + grid.square())).exp()
    order = (product - 1).abs().flatten().sort()
    below = density.flatten()[order.indices].cumsum(0) / density.sum()
    exact_median = order.values[(below < 0.5).sum()]

    for fitted in fit_seeds(method, problem, 5):
        a, b = fitted.values_and_kl(torch.randn(4000, 2, generator=rng(9)))[0].mT
        assert ((a > 0) & (b > 0)).float().mean() > 0.2
        assert ((a < 0) & (b < 0)).float().mean() > 0.2
        assert (a * b - 1).abs().median() < 1.5 * exact_median
