"""Posterior samples: chunks, gradients, dropout's rate, the ensemble's mixture, pickling."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from bhnbench.contract import Method, Predictive, Problem
from bhnbench.testing.problems import make_problem
from bhnbench_methods import predictive
from bhnbench_methods.bayesian_hypernet import BayesianHypernet
from bhnbench_methods.deep_ensemble import DeepEnsemble
from bhnbench_methods.maximum_likelihood import MaximumLikelihood
from bhnbench_methods.mc_dropout import MCDropout, _DropoutModel

METHODS = [
    MaximumLikelihood(),
    MCDropout(rate=0.3),
    DeepEnsemble(n_members=3),
    BayesianHypernet(initial_sd=0.5, width=8),
    BayesianHypernet(initial_sd=0.5, width=8, flow="iaf"),
]
by_name = pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fit(method: Method, problem: Problem) -> Predictive:
    return method.fit(problem, rng=rng(), report=lambda step, metrics: None)


@by_name
@pytest.mark.parametrize("kind", ["classification", "images"])
@pytest.mark.parametrize("max_activations", [1, 300, 2000])
def test_chunks_do_not_matter(
    method: Method, kind: str, max_activations: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = make_problem(kind, dtype=torch.float64)
    inputs, fitted = problem.validation.inputs, fit(method, problem)
    expected = fitted.sample(inputs, 7, rng=rng(1))
    monkeypatch.setattr(predictive, "MAX_ACTIVATIONS", max_activations)
    torch.testing.assert_close(fitted.sample(inputs, 7, rng=rng(1)), expected)


def test_a_chunk_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one call of the network sees never exceeds the bound, however much is asked for."""
    sizes = []

    def layer(inputs: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        outputs = inputs @ weights.view(3, 2)
        sizes.append(len(inputs))
        return outputs

    calls: list[int] = []
    vmap = predictive.vmap

    def counting(run: Callable, in_dims: tuple, chunk_size: int) -> Callable:
        calls.append(chunk_size)
        return vmap(run, in_dims=in_dims, chunk_size=chunk_size)

    monkeypatch.setattr(predictive, "MAX_ACTIVATIONS", 50)
    monkeypatch.setattr(predictive, "vmap", counting)
    outputs = predictive.sample_outputs(layer, torch.randn(25, 3), torch.randn(40, 6), 5)
    assert outputs.shape == (40, 25, 2)
    assert max(sizes) * calls[0] * 5 <= 50


@by_name
def test_gradient_in_inputs_is_that_of_finite_differences(method: Method) -> None:
    problem = make_problem("classification", dtype=torch.float64)
    fitted = fit(method, problem)
    inputs = problem.validation.inputs[:2].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: fitted.sample(x, 3, rng=rng(1)), (inputs,))


@by_name
def test_pickle_gives_the_same_samples(method: Method) -> None:
    problem = make_problem("images")
    fitted = fit(method, problem)
    inputs = problem.validation.inputs
    copy = pickle.loads(pickle.dumps(fitted))
    torch.testing.assert_close(
        copy.sample(inputs, 4, rng=rng(1)), fitted.sample(inputs, 4, rng=rng(1)), rtol=0, atol=0
    )


def test_a_pickle_holds_one_model_only() -> None:
    """Parameters are views of stacked tensors in training; a pickled view drags all along."""
    problem = make_problem("classification")
    one, five = (fit(DeepEnsemble(n_members=n), problem) for n in (1, 5))
    one_size, five_size = (len(pickle.dumps(fitted)) for fitted in (one, five))
    assert five_size < 6 * one_size


def test_deterministic_samples_are_equal_and_share_memory() -> None:
    problem = make_problem("regression")
    outputs = fit(MaximumLikelihood(), problem).sample(problem.train.inputs, 100, rng=rng())
    assert outputs.shape[0] == 100
    assert outputs.stride(0) == 0


def test_ensemble_samples_cycle_through_the_members() -> None:
    problem = make_problem("regression")
    fitted = fit(DeepEnsemble(n_members=3), problem)
    inputs = problem.validation.inputs
    members = fitted.sample(inputs, 3, rng=rng())
    assert not torch.equal(members[0], members[1])
    many = fitted.sample(inputs, 7, rng=rng(5))
    torch.testing.assert_close(many, members[torch.arange(7) % 3], rtol=0, atol=0)
    torch.testing.assert_close(fitted.sample(inputs, 2, rng=rng()), members[:2])
    mixture = problem.likelihood.scores(members, problem.validation.targets)
    doubled = fitted.sample(inputs, 6, rng=rng())
    again = problem.likelihood.scores(doubled, problem.validation.targets)
    assert again == pytest.approx(mixture, rel=1e-5)


def linear_hidden() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 50), nn.Linear(50, 3))


def test_dropout_keeps_its_rate_and_the_mean_of_what_it_drops() -> None:
    """Inverted dropout: the mean over masks of a linear network is the network itself."""
    rate, n_samples = 0.3, 20_000
    problem = make_problem("classification", dtype=torch.float64)
    problem = replace(problem, network=linear_hidden)
    torch.manual_seed(0)
    model = _DropoutModel(problem, rate, 0.0).eval()
    inputs = problem.train.inputs[:4]
    masks = model.draw_noise(inputs.expand(n_samples // 4, -1, -1).flatten(0, 1), rng())
    standard_error = math.sqrt(rate * (1 - rate) / masks.numel())
    assert abs(masks.mean().item() - (1 - rate)) < 4 * standard_error
    with torch.no_grad():
        samples = model.sample(inputs, n_samples, rng=rng(1))
        expected = model.network(inputs)
    error = samples.std(0) / math.sqrt(n_samples)
    assert ((samples.mean(0) - expected).abs() < 4.5 * error).all()
    # var = rate / (1 - rate) * sum_j (w_j h_j)^2, by hand
    hidden = model.network[0](inputs)
    contributions = hidden.unsqueeze(1) * model.network[1].layer.weight
    variance = rate / (1 - rate) * contributions.square().sum(-1)
    torch.testing.assert_close(samples.var(0), variance, rtol=0.1, atol=0)


def test_no_input_is_dropped_and_one_mask_serves_all_inputs() -> None:
    problem = make_problem("classification", dtype=torch.float64)
    model = _DropoutModel(problem, 0.5, 0.0).eval()
    assert len(model.gates) == 1
    inputs = problem.train.inputs[:1].expand(5, -1)
    samples = model.sample(inputs, 6, rng=rng())
    torch.testing.assert_close(samples, samples[:, :1].expand_as(samples))
    assert samples[:, 0].unique(dim=0).shape[0] > 1


def test_in_training_every_example_has_a_mask_of_its_own() -> None:
    problem = make_problem("classification")
    masks = _DropoutModel(problem, 0.5, 0.0).draw_noise(problem.train.inputs[:8], rng())
    assert masks.unique(dim=0).shape[0] > 1
    assert set(masks.unique().tolist()) == {0.0, 1.0}
