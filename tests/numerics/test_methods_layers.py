"""Wrapped layers: weight normalisation against torch's own, gates, tracing and initialisation."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from bhnbench.errors import UnsupportedError
from bhnbench.testing.problems import make_problem
from bhnbench_methods.data_init import standardise
from bhnbench_methods.layers import (
    GatedLayer,
    Site,
    WeightNormLayer,
    apply_layer,
    check_regular,
    run,
    trace,
    wrap,
)
from bhnbench_methods.models import PointModel, is_stackable, negative_log_prior

F64 = torch.float64


def convnet() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, dtype=F64),
        nn.ReLU(),
        nn.Conv2d(3, 4, 2, bias=False, dtype=F64),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 5, dtype=F64),
    )


def images(n: int = 6) -> torch.Tensor:
    return torch.randn(n, 1, 7, 7, dtype=F64, generator=torch.Generator().manual_seed(1))


def test_trace_follows_execution_not_registration() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.first = nn.Linear(4, 2), nn.Linear(3, 4)
            self.unused = nn.Linear(9, 9)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.last(self.first(inputs).relu())

    network = Backwards()
    found = trace(network, torch.zeros(2, 3))
    assert [(s.name, s.input_shape, s.n_units) for s in found.sites] == [
        ("first", (3,), 4),
        ("last", (4,), 2),
    ]
    assert network.training


def test_trace_counts_activations() -> None:
    found = trace(convnet(), images(2))
    assert [site.input_shape for site in found.sites] == [(1, 7, 7), (3, 5, 5), (16,)]
    # inputs, conv, relu, conv, pool, flatten, linear, and the whole network's outputs
    assert found.n_activations == 49 + 75 + 75 + 64 + 16 + 16 + 5 + 5


def test_without_gains_the_network_is_unchanged() -> None:
    network, inputs = convnet(), images()
    expected = network(inputs)
    network, _ = wrap(network, trace(network, inputs).sites, WeightNormLayer)
    torch.testing.assert_close(network(inputs), expected)


def test_weight_norm_and_its_gradients_are_those_of_torch() -> None:
    ours, reference, inputs = convnet(), convnet(), images()
    places = [0, 2, 5]
    for i in places:
        parametrizations.weight_norm(reference[i])
    gains = [torch.rand(reference[i].weight.shape[0], dtype=F64) - 0.5 for i in places]
    for i, gain in zip(places, gains, strict=True):
        g = reference[i].parametrizations.weight.original0
        g.data = gain.view(g.shape)
        gain.requires_grad_()
    network, layers = wrap(ours, trace(ours, inputs).sites, WeightNormLayer)
    outputs, expected = run(network, layers, gains, inputs), reference(inputs)
    torch.testing.assert_close(outputs, expected)
    outputs.square().sum().backward()
    expected.square().sum().backward()
    for i, gain, layer in zip(places, gains, layers, strict=True):
        weight = reference[i].parametrizations.weight
        torch.testing.assert_close(gain.grad, weight.original0.grad.flatten())
        torch.testing.assert_close(layer.v.grad, weight.original1.grad)
        if layer.bias is not None:
            torch.testing.assert_close(layer.bias.grad, reference[i].bias.grad)


def test_a_network_that_is_one_layer() -> None:
    layer = nn.Linear(3, 2)
    network, layers = wrap(layer, trace(layer, torch.zeros(2, 3)).sites, WeightNormLayer)
    assert network is layers[0]


def test_a_layer_used_in_two_places_is_wrapped_once() -> None:
    shared = nn.Linear(3, 3)
    network = nn.Sequential(shared, nn.Tanh(), shared)
    inputs = torch.randn(4, 3)
    expected = network(inputs)
    network, layers = wrap(network, trace(network, inputs).sites, WeightNormLayer)
    assert len(layers) == 1
    torch.testing.assert_close(network(inputs), expected)


def test_units_without_weights_get_a_direction() -> None:
    layer = nn.Linear(3, 2)
    nn.init.zeros_(layer.weight)
    wrapped = WeightNormLayer(layer)
    outputs = run(wrapped, [wrapped], [torch.ones(2)], torch.randn(4, 3))
    assert outputs.isfinite().all()


def test_a_gate_multiplies_the_input() -> None:
    layer = nn.Linear(3, 2)
    gate = GatedLayer(layer)
    inputs, mask = torch.randn(4, 3), torch.tensor([2.0, 0.0, 1.0])
    torch.testing.assert_close(run(gate, [gate], [mask], inputs), layer(inputs * mask))
    torch.testing.assert_close(gate(inputs), layer(inputs))


def test_gains_are_taken_out_again_after_an_error() -> None:
    layer = WeightNormLayer(nn.Linear(3, 2))
    with pytest.raises(RuntimeError):
        run(layer, [layer], [torch.ones(2)], torch.zeros(4, 99))
    assert layer.given is None


def test_data_dependent_initialisation_standardises_every_layer() -> None:
    network, inputs = convnet(), images(40)
    layers = [network.get_submodule(site.name) for site in trace(network, inputs).sites]
    standardise(network, inputs)
    seen: dict[int, torch.Tensor] = {}
    for i, layer in enumerate(layers):
        layer.register_forward_hook(lambda m, a, outputs, i=i: seen.update({i: outputs}))
    network(inputs)
    for i, layer in enumerate(layers):
        units = seen[i].transpose(0, 1).flatten(1)
        torch.testing.assert_close(units.std(1, correction=0), torch.ones_like(units[:, 0]))
        if layer.bias is not None:
            torch.testing.assert_close(units.mean(1), torch.zeros_like(units[:, 0]))


def test_data_dependent_initialisation_leaves_constant_units() -> None:
    layer = nn.Linear(3, 2)
    before = layer.weight.clone()
    standardise(layer, torch.ones(1, 3))
    torch.testing.assert_close(layer.weight, before)
    assert layer.bias.isfinite().all()


def found_in(forward: Callable[[nn.Linear, torch.Tensor], torch.Tensor]) -> tuple[Site, ...]:
    """Sites of a network whose one layer, from 3 to 3, is used as ``forward`` says."""

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return forward(self.layer, inputs)

    return trace(Network(), torch.randn(2, 3)).sites


def test_a_layer_is_found_however_it_is_called() -> None:
    once, twice = (Site("layer", (3,), (3,), 3, n_calls=n) for n in (1, 2))
    assert found_in(lambda layer, x: layer(x)) == (once,)
    assert found_in(lambda layer, x: layer(layer(x).tanh())) == (twice,)
    assert found_in(lambda layer, x: layer(input=x)) == (once,)
    assert found_in(lambda layer, x: nn.functional.linear(x, layer.weight)) == ()


def test_layers_without_one_row_an_example_are_told() -> None:
    regular = found_in(lambda layer, x: layer(layer(x)))
    check_regular(regular)
    rows = found_in(lambda layer, x: layer(x.repeat(5, 1)).view(2, -1))
    shapes = found_in(lambda layer, x: layer(x) + layer(x.unsqueeze(1)).squeeze(1))
    again = found_in(lambda layer, x: layer(layer(x.repeat(5, 1)))[:2])
    for irregular in (rows, shapes, again):
        with pytest.raises(UnsupportedError, match="layer 'layer' must see one row an example"):
            check_regular([*regular, *irregular])


def test_reading_the_weights_of_a_replaced_layer_is_explained() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.layer(inputs) @ self.layer.weight

    inputs = torch.randn(2, 3)
    network, layers = wrap(Tied(), trace(Tied(), inputs).sites, GatedLayer)
    with pytest.raises(UnsupportedError, match="must call its layers, but reads 'weight'"):
        run(network, layers, [torch.ones(3)], inputs)
    network.layer.forward = lambda inputs: inputs.nonsense
    with pytest.raises(AttributeError, match="nonsense"):
        run(network, layers, [torch.ones(3)], inputs)


@pytest.mark.parametrize(
    ("network", "inputs"),
    [
        (
            nn.Sequential(
                nn.Conv1d(2, 4, 3, padding=2, padding_mode="circular", dilation=2),
                nn.Conv1d(4, 6, 3, padding="same", groups=2),
            ),
            torch.randn(3, 2, 9),
        ),
        (
            nn.Sequential(
                nn.Conv2d(2, 4, 3, stride=2, padding=1, padding_mode="reflect"),
                nn.Conv2d(4, 4, (1, 2), groups=4, bias=False),
            ),
            torch.randn(3, 2, 8, 6),
        ),
        (
            nn.Sequential(nn.Conv3d(1, 2, 2, stride=(1, 2, 1)), nn.Conv3d(2, 3, 2, padding=1)),
            torch.randn(3, 1, 4, 4, 4),
        ),
    ],
    ids=["1d", "2d", "3d"],
)
def test_every_convolution_keeps_its_settings(
    network: nn.Sequential, inputs: torch.Tensor
) -> None:
    """With doubled gains and no biases each layer doubles; masks of ones change nothing."""
    for layer in network:
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    expected = 4 * network(inputs)
    sites = trace(network, inputs).sites
    wrapped, layers = wrap(deepcopy(network), sites, WeightNormLayer)
    gains = [2 * layer.norms() for layer in layers]
    torch.testing.assert_close(run(wrapped, layers, gains, inputs), expected)
    gated, gates = wrap(deepcopy(network), sites, GatedLayer)
    ones = [torch.ones(site.input_shape) for site in sites]
    torch.testing.assert_close(run(gated, gates, ones, inputs), network(inputs))
    for layer, site in zip(network, sites, strict=True):
        weight, bias = layer.weight.clone(), layer.bias
        rows = torch.randn(2, *site.input_shape)
        torch.testing.assert_close(apply_layer(layer, rows, weight, bias), layer(rows))


class OwnDropout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LazyLinear(3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(self.layer(inputs), 0.5, self.training)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cells, self.head = nn.GRU(1, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(self.cells(inputs.unsqueeze(-1))[0][:, -1])


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs = self.layer(inputs)
        return outputs / 2 if outputs.abs().max() > 1 else outputs


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (lambda: nn.Sequential(nn.LazyLinear(4), nn.BatchNorm1d(4), nn.Linear(4, 3)), True),
        (lambda: nn.Sequential(nn.Linear(2, 4), nn.FeatureAlphaDropout(), nn.Linear(4, 3)), False),
        (OwnDropout, False),
        (Recurrent, False),
        (Branching, False),
    ],
    ids=["plain", "random layer", "random function", "no batching rule", "branching"],
)
def test_what_can_be_stacked(network: Callable[[], nn.Module], expected: bool) -> None:
    before = torch.get_rng_state()
    assert is_stackable(replace(make_problem("classification"), network=network)) is expected
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("network", "expected"), [(OwnDropout, True), (Recurrent, False), (Branching, False)]
)
def test_what_can_be_stacked_with_random_numbers_of_its_own(
    network: Callable[[], nn.Module], expected: bool
) -> None:
    problem = replace(make_problem("classification"), network=network)
    assert is_stackable(problem, draws_its_own=True) is expected


def test_a_network_without_layers_has_no_prior() -> None:
    network, outputs = nn.PReLU(2), torch.ones(4, 2)
    assert negative_log_prior(network, outputs, 1.0) == 0
    problem = replace(make_problem("classification"), network=lambda: nn.PReLU(2))
    inputs = problem.train.inputs
    _, penalty = PointModel(problem, 1.0)(inputs, inputs.new_empty(0))
    assert penalty == 0
