"""Variational dropout and its sparse form: what shares an alpha, what is pruned."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from bhnbench.contract import Problem, Split
from bhnbench.testing.problems import make_problem
from bhnbench_methods.divergences import dropout_kl
from bhnbench_methods.gaussian_weights import GaussianLayer, GaussianModel
from bhnbench_methods.sparse_variational_dropout import SparseVariationalDropout
from bhnbench_methods.variational_dropout import VariationalDropout

F64 = torch.float64


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def no_report(*_: object) -> None:
    """Nobody listens."""


# Variational dropout


@pytest.mark.parametrize("kind", ["classification", "images"])
@pytest.mark.parametrize("granularity", ["layer", "unit", "weight"])
def test_the_posterior_multiplies_every_weight(granularity: str, kind: str) -> None:
    """With one alpha everywhere, variance and KL do not depend on what shares it."""
    problem = make_problem(kind, dtype=F64)
    method = VariationalDropout(granularity=granularity, initial_alpha=0.2)
    model = method.make_model(problem)
    assert isinstance(model, GaussianModel)
    one = dropout_kl(torch.tensor(0.2, dtype=F64).log())
    for layer in model.layers:
        posterior = layer.posterior()
        torch.testing.assert_close(posterior.weight_variance, 0.2 * layer.mean.square())
        assert posterior.bias_variance is None
        torch.testing.assert_close(posterior.kl, one * layer.mean.numel())
    for layer in model.layers:
        shape = layer.mean.shape
        expected = {"layer": 1, "unit": shape[1], "weight": shape.numel()}
        assert layer.raw_alpha.numel() == expected[granularity]


def test_alpha_rises_where_the_kl_rules_and_stays_below_one() -> None:
    problem, reports = make_problem("classification", epochs=100), []
    method = VariationalDropout(initial_alpha=0.05, learning_rate=0.05)
    method.fit(problem, rng=rng(), report=lambda _, figures: reports.append(figures))
    alphas = [(r["alpha_1"], r["alpha_2"]) for r in reports if "alpha_1" in r]
    assert all(0 < alpha < 1 for pair in alphas for alpha in pair)
    assert min(alphas[-1]) > 0.3


# Sparse variational dropout


def relevant_and_irrelevant(epochs: int = 300) -> Problem:
    """Two of eight inputs tell the classes apart."""
    inputs = torch.randn(600, 8, dtype=F64, generator=rng(2))
    targets = (inputs[:, 0] + inputs[:, 1] > 0).long()
    problem = make_problem("classification", epochs=epochs, batch_size=100, dtype=F64)
    train, validation = Split(inputs[:500], targets[:500]), Split(inputs[500:], targets[500:])
    return replace(problem, train=train, validation=validation, network=network)


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 6, dtype=F64), nn.Tanh(), nn.Linear(6, 3, dtype=F64))


def one_layer() -> nn.Module:
    return nn.Linear(8, 3, dtype=F64)


@pytest.fixture(scope="module")
def sparse():  # the private model, with its own methods
    method = SparseVariationalDropout(learning_rate=0.03)
    fitted = method.fit(relevant_and_irrelevant(epochs=50), rng=rng(), report=no_report)
    assert 0.1 < fitted.figures()["sparsity"] < 0.95
    return fitted


def test_weights_of_irrelevant_inputs_are_pruned() -> None:
    problem = replace(relevant_and_irrelevant(), network=one_layer)
    fitted = SparseVariationalDropout(learning_rate=0.03).fit(problem, rng=rng(), report=no_report)
    weight = fitted.pruned().weight
    pruned = (weight == 0).double()
    assert pruned[:, 2:].mean() > 0.8
    assert pruned[:, :2].mean() < 0.5
    outputs = fitted.sample(problem.validation.inputs, 1, rng=rng())[0]
    assert (outputs.argmax(1) == problem.validation.targets).double().mean() > 0.9


def test_the_pruned_network_is_plain_and_equals_the_predictive(sparse) -> None:
    inputs = relevant_and_irrelevant().validation.inputs
    before = sparse.sample(inputs, 3, rng=rng())
    pruned = sparse.pruned()
    assert not any(isinstance(module, GaussianLayer) for module in pruned.modules())
    assert pruned.state_dict().keys() == network().state_dict().keys()
    torch.testing.assert_close(pruned(inputs).expand(3, -1, -1), before)
    torch.testing.assert_close(sparse.sample(inputs, 3, rng=rng(1)), before, rtol=0, atol=0)


def test_sparsity_and_compression_count_the_zeros(sparse) -> None:
    pruned = sparse.pruned()
    zeros = {name: (pruned.get_submodule(name).weight == 0) for name in ("0", "2")}
    expected = {name: zero.double().mean().item() for name, zero in zeros.items()}
    assert sparse.sparsity() == pytest.approx(expected)
    n_kept = sum(int((~zero).sum()) for zero in zeros.values())
    assert sparse.compression() == pytest.approx((48 + 18) / n_kept)
    figures = sparse.figures()
    assert figures == pytest.approx({"sparsity": 1 - n_kept / 66, "compression": 66 / n_kept})


def test_an_empty_network_has_finite_figures() -> None:
    problem = relevant_and_irrelevant(epochs=1)
    model = SparseVariationalDropout(initial_log_variance=0.0, threshold=-8.0).make_model(problem)
    assert model.figures() == {"sparsity": 1.0, "compression": 66.0}
    assert set(model.sparsity().values()) == {1.0}


def test_a_network_that_is_one_layer_can_be_pruned() -> None:
    problem = replace(relevant_and_irrelevant(epochs=1), network=one_layer)
    fitted = SparseVariationalDropout().fit(problem, rng=rng(), report=no_report)
    inputs = problem.validation.inputs
    assert isinstance(fitted.pruned(), nn.Linear)
    torch.testing.assert_close(fitted.pruned()(inputs), fitted.sample(inputs, 1, rng=rng())[0])


def test_drawn_weights_have_the_posterior_where_they_are_left() -> None:
    problem = relevant_and_irrelevant(epochs=1)
    torch.manual_seed(0)
    model = SparseVariationalDropout(
        prediction="sample", initial_log_variance=-3.0, threshold=1.0
    ).make_model(problem)
    for layer in model.layers:
        log_alpha = -3.0 - layer.mean.square().log()
        mean, variance = layer.sampled_moments()
        kept = (log_alpha < 1).flatten()
        assert 0.2 < kept.double().mean() < 0.9
        torch.testing.assert_close(mean, layer.mean.flatten() * kept)
        torch.testing.assert_close(variance, torch.exp(torch.tensor(-3.0)).double() * kept)


class Repeated(nn.Module):
    """Calls a layer twice, so that its weights are drawn in training."""

    def __init__(self, n_inputs: int, n_outputs: int) -> None:
        super().__init__()
        self.first = nn.Linear(n_inputs, 16)
        self.again = nn.Linear(16, 16)
        self.last = nn.Linear(16, n_outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.again(self.again(self.first(x).relu()).relu()).relu()
        outputs: torch.Tensor = self.last(hidden)
        return outputs


def test_pruned_weights_of_a_layer_called_twice_go_on_in_training() -> None:
    """A draw without those that are pruned would have no gradient: the root of zero has none."""
    problem = make_problem("regression", epochs=30)
    n_inputs, n_outputs = problem.train.inputs.shape[1], 2 * problem.train.targets.shape[1]
    problem = replace(problem, network=lambda: Repeated(n_inputs, n_outputs))
    method = SparseVariationalDropout(learning_rate=1e-2)
    fitted = method.fit(problem, rng=rng(), report=no_report)
    assert fitted.sparsity()["again"] > 0.5
    assert all(parameter.isfinite().all() for parameter in fitted.parameters())
    (again,) = (x for x in method.make_model(problem).layers if x.mean.shape == (16, 16))
    with torch.no_grad():
        again.log_variance.copy_(again.mean.square().log() + 5)  # log alpha: beyond the threshold
    drawn, _ = again.drawn(torch.ones(again.mean.numel(), dtype=again.mean.dtype))
    drawn.weight.sum().backward()
    assert not again.kept().any()
    assert (again.mean.grad == 1).all()
    assert (again.log_variance.grad > 0).all()


def test_schedules_are_those_of_the_paper() -> None:
    """200 epochs: no KL in the first five, all of it from the twentieth on."""
    recipe = SparseVariationalDropout().recipe()
    weights = [recipe.kl_weight_at(epoch, 200) for epoch in (5, 6, 13, 14, 20, 21, 200)]
    assert weights == pytest.approx([0, 0, 7 / 15, 8 / 15, 14 / 15, 1, 1])
    rates = [recipe.learning_rate_at(step, 1000) for step in (1, 501, 751, 1000)]
    assert rates == pytest.approx([1e-3, 1e-3, 5e-4, 2e-6])
    assert not recipe.keep_best
