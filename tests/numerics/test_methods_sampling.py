"""Posterior samples: the bound on memory, the ensemble's mixture, pickling."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from importlib.util import find_spec

import pytest
import torch

from bhnbench.contract import Method, Predictive, Problem
from bhnbench.errors import ContractError
from bhnbench.testing.problems import make_problem
from bhnbench_methods import predictive
from bhnbench_methods.bayesian_hypernet import BayesianHypernet
from bhnbench_methods.deep_ensemble import DeepEnsemble
from bhnbench_methods.dropout import Dropout
from bhnbench_methods.laplace import Laplace
from bhnbench_methods.maximum_likelihood import MaximumLikelihood
from bhnbench_methods.sgld import SGLD
from bhnbench_methods.sparse_variational_dropout import SparseVariationalDropout

needs_laplace = pytest.mark.skipif(
    find_spec("laplace") is None, reason="laplace-torch is not installed; `make setup` does it"
)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fit(method: Method, problem: Problem) -> Predictive:
    return method.fit(problem, rng=rng(), report=lambda step, metrics: None)


def linear(inputs: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return inputs @ weights.view(3, 2)


def test_many_samples_of_few_inputs_are_few_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what is the same for all of them is computed once."""
    calls = []

    def layers(inputs: torch.Tensor, gains: torch.Tensor) -> torch.Tensor:
        calls.append(inputs.shape)
        return inputs * gains

    predictive.sample_outputs(
        layers, torch.randn(500, 3), lambda n: torch.randn(n, 3), 100, n_random=3, n_activations=50
    )
    assert calls == [(500, 3)]


def test_what_is_drawn_does_not_depend_on_the_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictive, "MAX_DRAWN", 60)
    drawn = []
    for n_inputs in (0, 1, 1000):
        blocks: list[int] = []

        def draw(n: int, blocks: list[int] = blocks) -> torch.Tensor:
            blocks.append(n)
            return torch.randn(n, 6)

        outputs = predictive.sample_outputs(
            linear, torch.randn(n_inputs, 3), draw, 25, n_random=6, n_activations=5
        )
        assert outputs.shape == (25, n_inputs, 2)
        drawn.append(blocks)
    assert drawn == [[10, 10, 5]] * 3


def test_a_chunk_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one call of the network sees never exceeds the bound, however much is asked for."""
    sizes = []

    def layer(inputs: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        outputs = inputs @ weights.view(3, 2)
        sizes.append(len(inputs))
        return outputs

    blocks: list[int] = []

    def draw(n: int) -> torch.Tensor:
        blocks.append(n)
        return torch.randn(n, 6)

    calls: list[int] = []
    vmap = predictive.vmap

    def counting(run: Callable, in_dims: tuple, chunk_size: int) -> Callable:
        calls.append(chunk_size)
        return vmap(run, in_dims=in_dims, chunk_size=chunk_size)

    monkeypatch.setattr(predictive, "MAX_ACTIVATIONS", 50)
    monkeypatch.setattr(predictive, "MAX_DRAWN", 60)
    monkeypatch.setattr(predictive, "vmap", counting)
    outputs = predictive.sample_outputs(
        layer, torch.randn(25, 3), draw, 40, n_random=6, n_activations=5
    )
    assert outputs.shape == (40, 25, 2)
    assert sum(blocks) == 40
    assert max(blocks) * 6 <= 60
    assert max(sizes) * calls[0] * 5 <= 50


@pytest.mark.parametrize("as_dict", [False, True])
def test_what_cannot_be_vmapped_runs_sample_by_sample(
    as_dict: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the samples of vmap, which is tried for the first of many chunks only."""
    monkeypatch.setattr(predictive, "MAX_ACTIVATIONS", 50)
    monkeypatch.setattr(predictive, "MAX_DRAWN", 60)
    n_attempts = 0

    def plain(inputs: torch.Tensor, weights: torch.Tensor | dict) -> torch.Tensor:
        return linear(inputs, weights["w"] if isinstance(weights, dict) else weights).tanh()

    def branching(inputs: torch.Tensor, weights: torch.Tensor | dict) -> torch.Tensor:
        nonlocal n_attempts
        outputs = plain(inputs, weights)
        n_attempts += torch._C._functorch.is_batchedtensor(outputs)
        return outputs / 2 if outputs.abs().max() > 2 else outputs  # never: both are one function

    def sample(run: Callable) -> torch.Tensor:
        random = rng()

        def draw(n: int) -> torch.Tensor | dict:
            drawn = torch.randn(n, 6, generator=random)
            return {"w": drawn} if as_dict else drawn

        return predictive.sample_outputs(run, inputs, draw, 25, n_random=6, n_activations=5)

    inputs = torch.randn(30, 3)
    torch.testing.assert_close(sample(branching), sample(plain))
    assert n_attempts == 1


def test_an_error_of_the_network_itself_is_told() -> None:
    with pytest.raises(RuntimeError, match="shape"):
        predictive.sample_outputs(
            linear, torch.randn(5, 4), lambda n: torch.randn(n, 6), 2, n_random=6, n_activations=5
        )


@pytest.mark.parametrize("n_samples", [0, -1])
@pytest.mark.parametrize(
    "method",
    [
        MaximumLikelihood(),
        Dropout(),
        DeepEnsemble(n_members=2),
        DeepEnsemble(n_members=1),
        BayesianHypernet(width=8),
        SparseVariationalDropout(),
        pytest.param(Laplace(), marks=needs_laplace),
        SGLD(n_kept=2),
    ],
    ids=lambda method: type(method).__name__,
)
@pytest.mark.filterwarnings("ignore::bhnbench.errors.PosteriorWarning")
def test_at_least_one_sample_must_be_asked_for(method: Method, n_samples: int) -> None:
    problem = make_problem("classification", epochs=2)
    fitted = fit(method, problem)
    with pytest.raises(ContractError, match="n_samples must be at least 1, but got"):
        fitted.sample(problem.train.inputs, n_samples, rng=rng())


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
