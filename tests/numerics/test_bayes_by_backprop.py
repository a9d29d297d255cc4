"""Bayes by backprop: an exact posterior, priors against Monte Carlo, samples of its weights."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.distributions import Categorical, MixtureSameFamily, Normal
from torch.func import functional_call, grad, vmap

from bhnbench.contract import Problem, Split
from bhnbench.errors import ContractError, UnsupportedError
from bhnbench.likelihoods import Gaussian
from bhnbench.testing.problems import make_problem
from bhnbench_methods.bayes_by_backprop import BayesByBackprop
from bhnbench_methods.gaussian_weights import GaussianModel
from bhnbench_methods.maximum_likelihood import MaximumLikelihood

F64 = torch.float64
NOISE_SD = 0.5


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class LinearRegression(nn.Module):
    """One layer, and noise of a known standard deviation."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1, dtype=F64)
        self.raw_scale = math.log(math.expm1(NOISE_SD))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        mean = self.layer(inputs)
        return torch.cat((mean, torch.full_like(mean, self.raw_scale)), dim=-1)


def regression(epochs: int) -> Problem:
    features = torch.randn(20, 3, dtype=F64, generator=rng(3))
    features[:, 1] = 0.9 * features[:, 0] + 0.4 * features[:, 1]  # correlated posterior
    slopes = torch.tensor([[1.0], [0.5], [-1.0]], dtype=F64)
    noise = NOISE_SD * torch.randn(20, 1, dtype=F64, generator=rng(4))
    data = Split(features, features @ slopes + 0.3 + noise)
    none = Split(features[:0], data.targets[:0])
    return Problem(data, none, Gaussian(), LinearRegression, epochs, batch_size=20)


def exact_posterior(problem: Problem, prior_sd: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and precision over slopes and intercept."""
    design = torch.cat((problem.train.inputs, torch.ones(20, 1, dtype=F64)), dim=1)
    precision = design.mT @ design / NOISE_SD**2 + torch.eye(4) / prior_sd**2
    mean = torch.linalg.solve(precision, design.mT @ problem.train.targets / NOISE_SD**2)
    return mean.squeeze(), precision


def test_bayesian_linear_regression() -> None:
    """The best factorised Gaussian has the posterior's means, and variances 1 / precision_jj."""
    problem = regression(epochs=1500)
    mean, precision = exact_posterior(problem, prior_sd=0.7)
    method = BayesByBackprop(prior_sd=0.7, initial_sd=0.2, learning_rate=0.02, lr_decay=True)
    fitted = method.fit(problem, rng=rng(), report=lambda *_: None)
    assert isinstance(fitted, GaussianModel)
    (layer,) = fitted.layers
    means, variances = layer.moments(layer.posterior())
    factorised, full = 1 / precision.diagonal(), torch.linalg.inv(precision).diagonal()
    # Adam's noise: over twelve seeds at most a quarter of a standard deviation.
    assert ((means - mean).abs() < 0.35 * factorised.sqrt()).all()
    torch.testing.assert_close(variances, factorised, rtol=0.15, atol=0)
    assert (full[:2] > 1.3 * factorised[:2]).all()  # or there was nothing to tell apart


def orthogonal(seed: int, scale: float) -> Problem:
    """A part of the data in which slopes and intercept are told apart: a factorised posterior."""
    design, _ = torch.linalg.qr(
        torch.cat((torch.ones(20, 1), torch.randn(20, 3, generator=rng(seed))), dim=1).to(F64)
    )
    features = scale * design[:, 1:]  # orthogonal to each other and to the constant
    noise = NOISE_SD * torch.randn(20, 1, dtype=F64, generator=rng(seed + 1))
    slopes = torch.tensor([[1.0], [0.5], [-1.0]], dtype=F64)
    problem = regression(epochs=1500)
    return replace(problem, train=Split(features, features @ slopes + 0.3 + noise))


def test_the_posterior_of_one_part_is_the_prior_of_the_next() -> None:
    """Learning the parts one after another ends at the exact posterior of all data."""
    parts = [orthogonal(seed=5, scale=4.0), orthogonal(seed=8, scale=2.0)]
    method = BayesByBackprop(prior_sd=0.7, initial_sd=0.2, learning_rate=0.02, lr_decay=True)
    first = method.fit(parts[0], rng=rng(), report=lambda *_: None)
    second = method.fit(
        replace(parts[1], prior=first), rng=rng(1), report=lambda *_: None, warm_start=first
    )
    assert isinstance(second, GaussianModel)
    designs = [torch.cat((p.train.inputs, torch.ones(20, 1, dtype=F64)), dim=1) for p in parts]
    design, targets = torch.cat(designs), torch.cat([part.train.targets for part in parts])
    precision = design.mT @ design / NOISE_SD**2 + torch.eye(4) / 0.7**2
    mean = torch.linalg.solve(precision, design.mT @ targets / NOISE_SD**2).squeeze()
    (layer,) = second.layers
    means, variances = layer.moments(layer.posterior())
    sd = precision.diagonal().rsqrt()
    assert ((means - mean).abs() < 0.35 * sd).all()
    torch.testing.assert_close(variances, sd.square(), rtol=0.2, atol=0)
    alone = exact_posterior(parts[1], prior_sd=0.7)[0]
    assert ((alone - mean).abs() > sd).any()  # or the first part taught nothing


def test_kl_to_an_earlier_posterior_is_torchs() -> None:
    problem = make_problem("images")
    method = BayesByBackprop()
    models = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        models.append(method.make_model(problem))
    earlier, model = models
    torch.manual_seed(2)
    continued = method.make_model(replace(problem, prior=earlier))
    for models_ in (model, continued):
        with torch.no_grad():
            for layer in models_.layers:
                layer.log_variance.add_(0.3)
    noise = continued.draw_noise(problem.train.inputs, rng())
    _, kl = continued(problem.train.inputs, noise)
    expected = torch.zeros(())
    for ours, theirs in zip(model.layers, earlier.layers, strict=True):
        q, p = (
            Normal(mean, variance.sqrt())
            for mean, variance in (x.moments(x.posterior()) for x in (ours, theirs))
        )
        expected = expected + torch.distributions.kl_divergence(q, p).sum()
    torch.testing.assert_close(kl, expected)


@pytest.mark.parametrize(
    ("other", "message"),
    [("classification", "of the same network"), (None, "what an earlier fit of BayesByBackprop")],
)
def test_a_foreign_prior_is_refused(other: str | None, message: str) -> None:
    problem = make_problem("regression")
    prior = object() if other is None else BayesByBackprop().make_model(make_problem(other))
    with pytest.raises(ContractError, match=message):
        BayesByBackprop().make_model(replace(problem, prior=prior))


def test_problems_with_and_without_a_prior_are_told_apart_in_one_fit() -> None:
    problem = make_problem("classification", epochs=2)
    method = BayesByBackprop(initial_sd=0.2)
    earlier = method.fit(problem, rng=rng(7), report=lambda *_: None)
    problems = [problem, replace(problem, prior=earlier)]
    for order in (problems, problems[::-1]):
        kls: list[list[float]] = [[], []]
        method.fit_many(
            order,
            rngs=[rng(), rng()],
            reports=[lambda _, m, kl=kl: kl.append(m["kl"]) for kl in kls],
            warm_starts=[None, None],
        )
        for one, kl in zip(order, kls, strict=True):
            alone: list[float] = []
            method.fit(one, rng=rng(), report=lambda _, m, kl=alone: kl.append(m["kl"]))
            assert kl == pytest.approx(alone, rel=1e-4)
        assert kls[0][0] != pytest.approx(kls[1][0], rel=0.1)


def test_who_takes_no_prior_says_so() -> None:
    problem = make_problem("regression")
    prior = BayesByBackprop().make_model(problem)
    with pytest.raises(UnsupportedError, match="cannot take an earlier posterior"):
        MaximumLikelihood().fit(replace(problem, prior=prior), rng=rng(), report=lambda *_: None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"empirical_bayes": True}, "has no empirical Bayes"),
        ({"narrow_sd": 1.5}, "narrow_sd < prior_sd must hold.*narrow_sd=1.5, prior_sd=1.0"),
    ],
)
def test_settings_that_a_mixture_would_ignore_are_refused(
    settings: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        BayesByBackprop(prior="scale_mixture", **settings)


@pytest.mark.parametrize("estimator", ["local", "weights"])
def test_the_objective_is_stationary_at_the_best_factorised_gaussian(estimator: str) -> None:
    """The mean of many gradients there is zero within its standard error; nearby it is not."""
    problem = regression(epochs=1)
    mean, precision = exact_posterior(problem, prior_sd=0.7)
    sd = precision.diagonal().rsqrt()
    model = BayesByBackprop(estimator=estimator, prior_sd=0.7).make_model(problem)
    inputs, targets = problem.train.inputs, problem.train.targets
    (name,) = [name for name, _ in model.named_parameters() if name.endswith("bias_log_variance")]
    prefix = name.removesuffix("bias_log_variance")

    def loss(means: torch.Tensor, log_sds: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        state = {
            f"{prefix}layer.weight": means[None, :3],
            f"{prefix}layer.bias": means[3:],
            f"{prefix}log_variance": 2 * log_sds[None, :3],
            f"{prefix}bias_log_variance": 2 * log_sds[3:],
        }
        outputs, kl = functional_call(model, state, (inputs, noise))
        return kl - problem.likelihood.log_prob(outputs, targets).sum()

    def standardised(means: torch.Tensor, log_sds: torch.Tensor) -> torch.Tensor:
        noise = torch.stack([model.draw_noise(inputs, rng(i)) for i in range(4000)])
        both = vmap(grad(loss, (0, 1)), in_dims=(None, None, 0))(means, log_sds, noise)
        gradients = torch.cat(both, dim=1)
        return gradients.mean(0) / gradients.std(0) * math.sqrt(len(noise))

    assert (standardised(mean, sd.log()).abs() < 4.5).all()
    assert (standardised(mean + 0.5 * sd, sd.log())[:4].abs() > 4.5).any()
    assert (standardised(mean, sd.log() + 0.3)[4:].abs() > 4.5).all()


def test_samples_are_draws_of_the_weights() -> None:
    problem = regression(epochs=5)
    fitted = BayesByBackprop(initial_sd=0.3).fit(problem, rng=rng(), report=lambda *_: None)
    assert isinstance(fitted, GaussianModel)
    n, inputs = 20_000, problem.train.inputs[:4]
    outputs = fitted.sample(inputs, n, rng=rng(1))[..., 0]
    (layer,) = fitted.layers
    means, variances = layer.moments(layer.posterior())
    design = torch.cat((inputs, torch.ones(4, 1, dtype=F64)), dim=1)
    covariance = (design * variances) @ design.mT
    error = 5 * covariance.diagonal().sqrt() / math.sqrt(n)
    assert ((outputs.mean(0) - design @ means).abs() < error).all()
    scale = covariance.diagonal().sqrt()
    correlation = covariance / scale.outer(scale)
    torch.testing.assert_close(torch.corrcoef(outputs.mT), correlation, rtol=0, atol=0.04)


def test_kl_is_the_sum_over_all_weights_and_biases() -> None:
    problem = make_problem("images", dtype=F64)
    model = BayesByBackprop(prior_sd=0.4, initial_sd=0.2).make_model(problem)
    inputs = problem.train.inputs
    _, kl = model(inputs, model.draw_noise(inputs, rng()))
    expected = torch.zeros((), dtype=F64)
    for module in model.network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            for mean in (module.weight, module.bias):
                sd = torch.full_like(mean, 0.2)
                divergence = torch.distributions.kl_divergence(Normal(mean, sd), Normal(0.0, 0.4))
                expected = expected + divergence.sum()
    torch.testing.assert_close(kl, expected)


def test_kl_of_a_scale_mixture_is_that_of_monte_carlo() -> None:
    share, wide, narrow, sd = 0.3, 0.6, 0.05, 0.1
    method = BayesByBackprop(
        prior="scale_mixture", prior_sd=wide, narrow_sd=narrow, wide_share=share, initial_sd=sd
    )
    problem = regression(epochs=1)
    torch.manual_seed(0)
    model = method.make_model(problem)
    assert isinstance(model, GaussianModel)
    (layer,) = model.layers
    means, variances = layer.moments(layer.posterior())
    n, inputs = 3000, problem.train.inputs
    noise = torch.stack([model.draw_noise(inputs, rng(i)) for i in range(n)])
    ours = vmap(lambda row: model(inputs, row)[1])(noise)
    shares, sds = torch.tensor([share, 1 - share]), torch.tensor([wide, narrow])
    prior = MixtureSameFamily(Categorical(shares), Normal(torch.zeros(2), sds))
    posterior = Normal(means, variances.sqrt())
    with torch.no_grad():
        torch.manual_seed(1)
        drawn = posterior.sample((n,))
        independent = (posterior.log_prob(drawn) - prior.log_prob(drawn)).sum(1)
    error = math.sqrt((ours.var().item() + independent.var().item()) / n)
    assert ours.mean().item() == pytest.approx(independent.mean().item(), abs=4 * error)
    assert ours.var() < independent.var()  # entropy and the wide component are in closed form


def test_empirical_bayes_reports_the_scale_of_its_weights() -> None:
    problem, reports = regression(epochs=3), []
    method = BayesByBackprop(empirical_bayes=True)
    fitted = method.fit(problem, rng=rng(), report=lambda _, figures: reports.append(figures))
    assert isinstance(fitted, GaussianModel)
    (layer,) = fitted.layers
    variance = layer.posterior().weight_variance
    scale = (layer.mean.square() + variance).mean().sqrt().item()
    assert reports[-1]["prior_sd_1"] == pytest.approx(scale)
    plain = replace(method, empirical_bayes=False)
    reports.clear()
    plain.fit(problem, rng=rng(), report=lambda _, figures: reports.append(figures))
    assert "prior_sd_1" not in reports[-1]


def test_a_network_without_layers_is_not_supported() -> None:
    problem = replace(make_problem("classification"), network=lambda: nn.PReLU(2))
    reason = BayesByBackprop().supports(problem)
    assert reason == "it needs a Linear or Conv layer, but the network has none"
