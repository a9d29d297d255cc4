"""Ensembles of one fit and of several: what is kept, how it is sampled, the optimiser behind."""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import nn

from bhnbench.contract import Predictive, Problem, Split
from bhnbench.testing.problems import make_problem
from bhnbench_methods import predictive
from bhnbench_methods.cyclical_sghmc import CyclicalSGHMC
from bhnbench_methods.deep_ensemble import DeepEnsemble
from bhnbench_methods.fitting import TrainedMethod
from bhnbench_methods.kept_samples import ChainModel, evenly
from bhnbench_methods.optimisers import Langevin, LangevinDynamics
from bhnbench_methods.sgld import SGLD
from bhnbench_methods.snapshot_ensemble import SnapshotEnsemble

METHODS = [
    SnapshotEnsemble(n_cycles=3),
    SGLD(n_kept=4),
    CyclicalSGHMC(n_cycles=2, n_kept_per_cycle=2),
]
by_name = pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def silent(step: int, metrics: Mapping[str, float]) -> None:
    """Report to nobody."""


def fit(method: TrainedMethod, problem: Problem, start: Predictive | None = None) -> Predictive:
    return method.fit(problem, rng=rng(), report=silent, warm_start=start)


@pytest.mark.parametrize(
    ("n_steps", "n", "start", "steps"),
    [
        (9, 3, 0.0, [3, 6, 9]),
        (10, 3, 0.0, [4, 7, 10]),
        (10, 2, 0.5, [8, 10]),
        (2, 5, 0.0, [1, 2]),
        (3, 20, 0.99, [3]),
        (1, 4, 0.9, [1]),
    ],
)
def test_steps_are_even_and_the_last_is_kept(
    n_steps: int, n: int, start: float, steps: list[int]
) -> None:
    assert evenly(n_steps, n, start=start) == steps


def test_each_cycle_keeps_its_later_part() -> None:
    method = CyclicalSGHMC(n_cycles=2, n_kept_per_cycle=2, exploration=0.5)
    assert method.recipe().samples_at(24) == [9, 12, 21, 24]
    assert method.recipe().samples_at(1) == [1]


@by_name
def test_samples_are_the_kept_networks_with_their_buffers(method: TrainedMethod) -> None:
    """One by one, each a network in eval mode with the batch norm statistics of its time."""
    problem = make_problem("images", dtype=torch.float64)
    fitted, inputs = fit(method, problem), problem.validation.inputs
    n_kept = len(fitted.kept["0.weight"])
    assert n_kept == (3 if isinstance(method, SnapshotEnsemble) else 4)
    assert len(fitted.kept["1.running_mean"].unique(dim=0)) == n_kept
    apart = []
    for i in range(n_kept):
        network = problem.network().eval()
        network.load_state_dict({name: stacked[i] for name, stacked in fitted.kept.items()})
        apart.append(network(inputs))
    expected = torch.stack(apart).detach()
    assert len(expected.unique(dim=0)) == n_kept
    together = fitted.sample(inputs, 2 * n_kept + 1, rng=rng())
    torch.testing.assert_close(together, torch.cat([expected, expected, expected[:1]]))
    torch.testing.assert_close(fitted.sample(inputs, 2, rng=rng())[1], expected[-1])
    last = {name: stacked[-1] for name, stacked in fitted.kept.items()}
    for name, tensor in fitted.network.state_dict().items():  # from where a chain goes on
        torch.testing.assert_close(tensor, last[name])


@by_name
def test_chunks_do_not_matter(method: TrainedMethod, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = make_problem("images", dtype=torch.float64)
    fitted, inputs = fit(method, problem), problem.validation.inputs
    expected = fitted.sample(inputs, 7, rng=rng())
    monkeypatch.setattr(predictive, "MAX_ACTIVATIONS", 300)
    monkeypatch.setattr(predictive, "MAX_DRAWN", 200)
    torch.testing.assert_close(fitted.sample(inputs, 7, rng=rng()), expected)


def test_a_pickle_holds_the_kept_networks_once() -> None:
    problem = make_problem("classification")
    few, many = (
        len(pickle.dumps(fit(SGLD(n_kept=n, burn_in=0.0), replace(problem, epochs=20))))
        for n in (10, 50)
    )
    n_bytes = 4 * sum(p.numel() for p in problem.network().parameters())
    assert many - few == pytest.approx(40 * n_bytes, rel=0.05)


@by_name
def test_kept_networks_move_with_the_model(method: TrainedMethod) -> None:
    problem = make_problem("images")
    inputs = problem.validation.inputs
    fitted = fit(method, problem)
    single = fitted.sample(inputs, 3, rng=rng())
    double = pickle.loads(pickle.dumps(fitted)).double()
    outputs = double.sample(inputs.double(), 3, rng=rng())
    assert outputs.dtype == torch.float64
    torch.testing.assert_close(outputs.float(), single)
    assert double.kept["1.num_batches_tracked"].dtype == torch.int64
    assert {kept.device.type for kept in fitted.to("meta").kept.values()} == {"meta"}


@by_name
def test_the_scores_reported_last_are_those_of_the_predictive(method: TrainedMethod) -> None:
    problem = make_problem("classification", dtype=torch.float64)
    heard: list[Mapping[str, float]] = []
    fitted = method.fit(problem, rng=rng(), report=lambda step, metrics: heard.append(metrics))
    n_kept = len(fitted.kept["0.weight"])
    outputs = fitted.sample(problem.validation.inputs, n_kept, rng=rng())
    scores = problem.likelihood.scores(outputs, problem.validation.targets)
    assert {name: heard[-1][name] for name in scores} == pytest.approx(scores)


def half_frozen() -> nn.Module:
    network = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 3))
    network[0].requires_grad_(False)
    return network


@by_name
def test_a_frozen_parameter_is_kept_once(method: TrainedMethod) -> None:
    fitted = fit(method, replace(make_problem("classification"), network=half_frozen))
    assert set(fitted.kept) == {"2.weight", "2.bias"}


def test_members_of_an_ensemble_keep_frozen_parameters_of_their_own() -> None:
    problem = replace(make_problem("classification"), network=half_frozen)
    fitted = fit(DeepEnsemble(n_members=3), problem)
    assert len(fitted.states["0.weight"].unique(dim=0)) == 3


def test_adversarial_training_needs_inputs_that_can_be_shifted() -> None:
    problem = make_problem("classification")
    counts = replace(problem.train, inputs=problem.train.inputs.long())
    refused = DeepEnsemble(adversarial_step=0.01).supports(replace(problem, train=counts))
    assert refused is not None
    assert refused.startswith("adversarial_step > 0 needs floating-point inputs")
    embedding = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(8, 3))
    counts = Split(counts.inputs.abs(), counts.targets)
    words = replace(problem, train=counts, validation=counts, network=lambda: embedding)
    assert DeepEnsemble().supports(words) is None


def test_prior_is_proper_and_scaled_by_the_inputs_of_a_unit() -> None:
    """The penalty's gradient: precision times inputs for weights, precision for all else."""

    def network() -> nn.Module:
        grouped = nn.Conv1d(4, 6, 3, groups=2, dtype=torch.float64)
        norm, last = nn.BatchNorm1d(6, dtype=torch.float64), nn.Linear(6, 3, dtype=torch.float64)
        return nn.Sequential(nn.Unflatten(1, (4, 3)), grouped, norm, nn.Flatten(), last)

    inputs = torch.randn(8, 12, dtype=torch.float64, generator=rng())
    problem = make_problem("classification", n=8)
    problem = replace(problem, network=network, train=replace(problem.train, inputs=inputs))
    model = ChainModel(problem, 0.5)
    _, penalty = model(inputs, torch.empty(0))
    penalty.backward()
    factors = {"1.weight": 2 * 3, "1.bias": 1, "2.weight": 1, "4.weight": 6, "4.bias": 1}
    for name, factor in factors.items():
        parameter = model.network.get_parameter(name)
        torch.testing.assert_close(parameter.grad, 0.5 * factor * parameter.detach())


def dynamics(flat: torch.Tensor, grad: torch.Tensor, how: Langevin) -> LangevinDynamics:
    rngs = [rng(seed) for seed in range(len(flat))]
    return LangevinDynamics(flat, grad, rngs, 10, how)


def test_cold_dynamics_are_gradient_descent_with_momentum() -> None:
    ours = torch.randn(3, 5, dtype=torch.float64, generator=rng())
    theirs = ours.clone().requires_grad_()
    grad = torch.zeros_like(ours)
    cold = dynamics(ours, grad, Langevin(friction=0.3, temperature=0.0))
    reference = torch.optim.SGD([theirs], lr=0.1, momentum=0.7)
    for step in range(5):
        grad.copy_(torch.randn(3, 5, dtype=torch.float64, generator=rng(step)))
        theirs.grad = grad.clone()
        cold.step(0.1, step / 5)
        reference.step()
    torch.testing.assert_close(ours, theirs.detach())


@pytest.mark.parametrize("preconditioned", [False, True])
def test_noise_has_its_variance_and_is_each_replicas_own(preconditioned: bool) -> None:
    """``2 friction lr temperature G / N`` in one step from rest."""
    n = 20_000
    flat, grad = torch.zeros(2, n, dtype=torch.float64), torch.full((2, n), 0.1).double()
    how = Langevin(friction=0.3, temperature=0.7, preconditioned=preconditioned)
    dynamics(flat, grad, how).step(0.05, 0.0)
    scale = 1 / (0.1 + 1e-3) if preconditioned else 1.0
    drift, variance = -0.05 * scale * 0.1, 2 * 0.3 * 0.05 * 0.7 * scale / 10
    error = math.sqrt(variance / n)
    assert ((flat.mean(1) - drift).abs() < 4 * error).all()
    assert (flat.var(1) / variance - 1).abs().max() < 4 * math.sqrt(2 / n)
    assert abs(torch.corrcoef(flat)[0, 1]) < 4 / math.sqrt(n)
    alone = torch.zeros(1, n, dtype=torch.float64)
    dynamics(alone, torch.full((1, n), 0.1).double(), how).step(0.05, 0.0)
    torch.testing.assert_close(alone[0], flat[0])


def test_noise_follows_its_schedule() -> None:
    flat, grad = torch.zeros(1, 4), torch.zeros(1, 4)
    how = Langevin(noise_schedule=lambda progress: float(progress >= 0.5))
    chain = dynamics(flat, grad, how)
    chain.step(0.1, 0.4)
    assert not flat.any()
    chain.step(0.1, 0.5)
    assert flat.all()
