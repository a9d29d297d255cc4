"""Wrapped layers: weight normalisation against torch's own, gates, tracing and initialisation."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from bhnbench_methods.layers import (
    GatedLayer,
    WeightNormLayer,
    run,
    standardise,
    trace,
    wrap,
)

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
    network, layers = wrap(network, trace(network, inputs).sites, WeightNormLayer)
    standardise(network, layers, inputs)
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
    layer = WeightNormLayer(nn.Linear(3, 2))
    before = layer.v.clone()
    standardise(layer, [layer], torch.ones(1, 3))
    torch.testing.assert_close(layer.v, before)
    assert layer.bias is not None
    assert layer.bias.isfinite().all()
