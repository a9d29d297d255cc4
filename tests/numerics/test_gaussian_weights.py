"""Layers with Gaussian weights, against draws of their weights, Monte Carlo and autograd."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from bhnbench.testing.problems import make_problem
from bhnbench_methods.bayes_by_backprop import BayesByBackprop
from bhnbench_methods.bayes_by_hypernet import BayesByHypernet
from bhnbench_methods.bayesian_hypernet import BayesianHypernet
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
