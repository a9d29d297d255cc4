"""Gaussian layers and their divergences, against quadrature, Monte Carlo and autograd."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from scipy.integrate import quad
from scipy.special import dawsn
from torch import nn
from torch.distributions import Normal
from torch.func import functional_call, grad, vmap

from bhnbench.testing.problems import make_problem
from bhnbench_methods import divergences
from bhnbench_methods.bayes_by_backprop import BayesByBackprop
from bhnbench_methods.bayes_by_hypernet import BayesByHypernet
from bhnbench_methods.bayesian_hypernet import BayesianHypernet
from bhnbench_methods.divergences import (
    additive_log_uniform_kl,
    best_prior_sd,
    dropout_kl,
    gaussian_kl,
    log_uniform_kl,
)
from bhnbench_methods.fitting import TrainedMethod
from bhnbench_methods.gaussian_weights import GaussianLayer, Posterior
from bhnbench_methods.layers import run
from bhnbench_methods.multiplicative_normalizing_flow import MultiplicativeNormalizingFlow
from bhnbench_methods.sparse_variational_dropout import SparseVariationalDropout
from bhnbench_methods.variational_dropout import VariationalDropout

F64 = torch.float64


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=F64, generator=rng(seed))


# Divergences


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


# Layers


class Layer(GaussianLayer):
    """Weights and biases with given variances."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__(layer)
        self.weight_variance = nn.Parameter(0.1 + 0.1 * torch.rand_like(self.mean))
        self.bias_variance = (
            None if self.bias_mean is None else 0.05 + torch.rand_like(self.bias_mean)
        )

    def posterior(self) -> Posterior:
        return Posterior(self.weight_variance, self.bias_variance, torch.zeros(()))


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(4, 3, dtype=F64), (4,)),
    "sequence": (lambda: nn.Linear(4, 3, bias=False, dtype=F64), (2, 4)),
    "conv1d": (lambda: nn.Conv1d(2, 3, 3, padding=1, dtype=F64), (2, 5)),
    "conv2d": (
        lambda: nn.Conv2d(
            4, 6, 3, stride=2, padding=2, dilation=2, groups=2, padding_mode="circular", dtype=F64
        ),
        (4, 7, 7),
    ),
}


def make(name: str) -> tuple[Layer, torch.Tensor]:
    torch.manual_seed(0)
    build, shape = LAYERS[name]
    return Layer(build()), normal(2, *shape)


def outputs_of(layer: Layer, noise: torch.Tensor, inputs: torch.Tensor, how: str) -> torch.Tensor:
    given, _ = layer.perturbed(noise) if how == "perturbed" else layer.drawn(noise)
    return run(layer, [layer], [given], inputs)


def many_outputs(layer: Layer, inputs: torch.Tensor, how: str, n: int) -> torch.Tensor:
    n_random = len(layer.moments(layer.posterior())[0])
    size = layer(inputs).numel() if how == "perturbed" else n_random
    return vmap(lambda noise: outputs_of(layer, noise, inputs, how))(normal(n, size, seed=3))


@pytest.mark.parametrize("name", LAYERS)
def test_perturbed_pre_activations_have_the_moments_of_drawn_weights(name: str) -> None:
    layer, inputs = make(name)
    n = 4000
    with torch.no_grad():
        perturbed, drawn = (many_outputs(layer, inputs, how, n) for how in ("perturbed", "drawn"))
        mean = layer(inputs)
    for outputs in (perturbed, drawn):
        sd = outputs.std(0)
        assert ((outputs.mean(0) - mean).abs() < 5 * sd / math.sqrt(n)).all()
        ratio = outputs.var(0) / drawn.var(0)
        assert ((ratio - 1).abs() < 5 * math.sqrt(2 * 2 / n)).all()


@pytest.mark.parametrize("name", LAYERS)
def test_without_anything_given_the_layer_is_the_plain_one(name: str) -> None:
    layer, inputs = make(name)
    torch.testing.assert_close(layer(inputs), layer.layer(inputs))


def test_local_gradients_are_those_of_drawn_weights_with_less_variance() -> None:
    """In expectation, of a nonlinear loss over a minibatch."""
    torch.manual_seed(0)
    layer = Layer(nn.Linear(4, 3, dtype=F64))
    leaves = {name: parameter.detach() for name, parameter in layer.named_parameters()}
    inputs, n = normal(30, 4), 4000

    def gradients(how: str) -> dict[str, torch.Tensor]:
        class Loss(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer = layer

            def forward(self, noise: torch.Tensor) -> torch.Tensor:
                return outputs_of(self.layer, noise, inputs, how).tanh().square().mean()

        def loss(leaves: dict[str, torch.Tensor], noise: torch.Tensor) -> torch.Tensor:
            state = {f"layer.{name}": leaf for name, leaf in leaves.items()}
            return functional_call(Loss(), state, (noise,))

        noise = normal(n, 90 if how == "perturbed" else 15, seed=5)
        return vmap(grad(loss), in_dims=(None, 0))(leaves, noise)

    local, plain = gradients("perturbed"), gradients("drawn")
    for name in ("layer.weight", "weight_variance"):
        error = (local[name].var(0) + plain[name].var(0)).sqrt() / math.sqrt(n)
        assert ((local[name].mean(0) - plain[name].mean(0)).abs() < 4.5 * error).all()
        assert local[name].var(0).sum() < 0.5 * plain[name].var(0).sum()


def test_silent_inputs_have_finite_gradients() -> None:
    """All inputs zero, no random bias: the variance is zero, and its root has no derivative."""
    layer = Layer(nn.Linear(4, 3, bias=False))
    inputs = torch.zeros(5, 4, requires_grad=True)
    outputs = outputs_of(layer, torch.randn(15, generator=rng()), inputs, "perturbed")
    gradients = torch.autograd.grad(outputs.square().sum(), (inputs, *layer.parameters()))
    assert all(gradient.isfinite().all() for gradient in gradients)


# Layers called twice


class Difference(nn.Module):
    """One draw of the first layer's weights makes its two outputs depend on each other."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(2, 4), nn.Linear(4, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(inputs) - self.first(inputs.flip(1)))


class PerNumber(nn.Module):
    """The first layer sees numbers one by one, not examples."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(1, 4), nn.Linear(4, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(inputs.reshape(-1, 1)).view(len(inputs), 2, 4).sum(1))


@pytest.mark.parametrize("network", [Difference, PerNumber])
@pytest.mark.parametrize(
    "method",
    [
        BayesByBackprop(initial_sd=0.3),
        VariationalDropout(initial_alpha=0.9),
        SparseVariationalDropout(initial_log_variance=-3.0, threshold=8.0, prediction="sample"),
        MultiplicativeNormalizingFlow(n_flows=1, width=4, initial_sd=0.3),
    ],
    ids=lambda m: type(m).__name__,
)
def test_training_draws_what_prediction_draws(
    method: TrainedMethod, network: Callable[[], nn.Module]
) -> None:
    """Outputs of training have the moments of posterior samples, input by input."""
    problem = replace(make_problem("classification", dtype=F64), network=network)
    assert method.supports(problem) is None
    torch.manual_seed(0)
    model, n, inputs = method.make_model(problem), 4000, problem.train.inputs[:3]
    noise = torch.stack([model.draw_noise(inputs, rng(i)) for i in range(n)])
    with torch.no_grad():
        trained = vmap(lambda row: model(inputs, row)[0])(noise)
        sampled = model.sample(inputs, n, rng=rng(1))
    error = (trained.var(0) + sampled.var(0)).div(n).sqrt()
    assert ((trained.mean(0) - sampled.mean(0)).abs() < 5 * error).all()
    # Products of weights of two layers have tails: their fourth moment is some 3 to 6 variances^2.
    assert ((trained.var(0) / sampled.var(0) - 1).abs() < 5 * math.sqrt(2 * 5 / n)).all()


# Frozen and tied layers


METHODS = (
    BayesByBackprop(),
    VariationalDropout(),
    SparseVariationalDropout(),
    MultiplicativeNormalizingFlow(n_flows=1, width=4),
    BayesianHypernet(width=4),
    BayesianHypernet(width=4, data_init=True),
    BayesByHypernet(),
)
every_method = pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)


def two_layers(*frozen: int) -> nn.Module:
    network = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 3))
    for place in frozen:
        network[place].requires_grad_(False)
    return network


@every_method
def test_frozen_layers_stay_as_they_are(method: TrainedMethod) -> None:
    problem = replace(make_problem("classification"), network=lambda: two_layers(0))
    assert method.supports(problem) is None
    torch.manual_seed(0)
    frozen = two_layers(0)[0]
    torch.manual_seed(0)
    model = method.make_model(problem)
    network = model.target.network if hasattr(model, "target") else model.network
    assert isinstance(network[0], nn.Linear)
    assert not isinstance(network[2], nn.Linear)
    torch.testing.assert_close(network[0].state_dict(), frozen.state_dict())


@every_method
def test_a_network_of_frozen_layers_is_refused(method: TrainedMethod) -> None:
    problem = replace(make_problem("classification"), network=lambda: two_layers(0, 2))
    assert method.supports(problem) == (
        "it needs a Linear or Conv layer to train, but the weights of all are frozen; "
        "call requires_grad_(True) on one"
    )


@every_method
def test_tied_weights_are_refused(method: TrainedMethod) -> None:
    def tied() -> nn.Module:
        first, second = nn.Linear(2, 2), nn.Linear(2, 2)
        second.weight = first.weight
        return nn.Sequential(first, nn.Tanh(), second, nn.Linear(2, 3))

    assert method.supports(replace(make_problem("classification"), network=tied)) == (
        "layers must have weights of their own, but '0' and '2' share theirs; "
        "call one layer twice, or copy the weights"
    )


@every_method
def test_a_layer_called_twice_is_no_tie(method: TrainedMethod) -> None:
    def twice() -> nn.Module:
        layer = nn.Linear(2, 2)
        return nn.Sequential(layer, nn.Tanh(), layer, nn.Linear(2, 3))

    assert method.supports(replace(make_problem("classification"), network=twice)) is None
