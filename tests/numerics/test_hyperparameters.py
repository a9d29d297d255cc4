"""Settings that a method hands on: each arrives where its documentation says, at its value."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from bhnbench.contract import Problem
from bhnbench.testing.fitting import Listener, fit
from bhnbench.testing.problems import make_problem
from bhnbench_methods.bayes_by_backprop import BayesByBackprop
from bhnbench_methods.bayes_by_hypernet import BayesByHypernet
from bhnbench_methods.bayesian_hypernet import BayesianHypernet
from bhnbench_methods.cyclical_sghmc import CyclicalSGHMC
from bhnbench_methods.deep_ensemble import DeepEnsemble
from bhnbench_methods.distilled import Distilled
from bhnbench_methods.fitting import TrainedMethod
from bhnbench_methods.implicit_kl import Discriminator
from bhnbench_methods.langevin_method import LangevinMethod
from bhnbench_methods.laplace import Laplace
from bhnbench_methods.maximum_likelihood import MaximumLikelihood
from bhnbench_methods.models import Model, PointModel, RandomModel
from bhnbench_methods.multiplicative_layer import MultiplicativeLayer
from bhnbench_methods.multiplicative_normalizing_flow import MultiplicativeNormalizingFlow
from bhnbench_methods.sgld import SGLD
from bhnbench_methods.snapshot_ensemble import SnapshotEnsemble
from bhnbench_methods.sparse_variational_dropout import SparseVariationalDropout

F64 = torch.float64


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_model(method: TrainedMethod, kind: str = "classification") -> Model:
    torch.manual_seed(0)
    return method.make_model(make_problem(kind, dtype=F64))


@pytest.mark.parametrize(
    "cls",
    [MaximumLikelihood, DeepEnsemble, SnapshotEnsemble, Distilled, Laplace],
    ids=lambda cls: cls.__name__,
)
def test_weight_decay_is_the_precision_of_a_prior_on_weights(
    cls: Callable[..., TrainedMethod],
) -> None:
    """``-log N(w; 0, 1 / weight_decay)`` without its constant; biases and batch norm are free."""
    problem = make_problem("images", dtype=F64)
    model = make_model(cls(weight_decay=0.6), "images")
    assert isinstance(model, PointModel)
    inputs = problem.train.inputs
    _, penalty = model(inputs, model.draw_noise(inputs, rng()))
    weights = [p for p in model.network.parameters() if p.ndim > 1]
    assert len(weights) == 3
    prior = Normal(torch.tensor(0.0, dtype=F64), 0.6**-0.5)
    expected = [-(prior.log_prob(w) - prior.log_prob(torch.zeros(()))).sum() for w in weights]
    torch.testing.assert_close(penalty, torch.stack(expected).sum())


def known_start() -> nn.Module:
    """The same weights whatever the seed."""
    network = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    stream = rng(5)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(generator=stream)
    return network


def descend(problem: Problem, momentum: float, factor: Callable[[float], float]) -> nn.Module:
    """``v' = momentum v - lr(t) grad U / N``, with the prior of precision 0.5."""
    network, data = known_start(), problem.train
    parameters = list(network.parameters())
    velocities = [torch.zeros_like(parameter) for parameter in parameters]
    for step in range(problem.epochs):
        rate = 0.2 * factor(step / problem.epochs)
        loss = -problem.likelihood.log_prob(network(data.inputs), data.targets).mean()
        for parameter in parameters:
            n_inputs = parameter.shape[1] if parameter.ndim > 1 else 1
            loss = loss + 0.5 * n_inputs / 2 * parameter.square().sum() / len(data)
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for parameter, velocity, gradient in zip(
                parameters, velocities, gradients, strict=True
            ):
                velocity.mul_(momentum).sub_(rate * gradient)
                parameter.add_(velocity)
    return network


@pytest.mark.parametrize(
    ("method", "momentum", "n_cycles"),
    [
        (SGLD(), 0.0, None),
        (CyclicalSGHMC(friction=0.3, n_cycles=3), 0.7, 3),
        (CyclicalSGHMC(friction=1.0, n_cycles=1), 0.0, 1),
    ],
    ids=["sgld", "cyclical_sghmc", "without momentum"],
)
def test_a_cold_chain_descends_to_the_mode_of_the_posterior(
    method: LangevinMethod, momentum: float, n_cycles: int | None
) -> None:
    """``temperature: 0`` on full batches is gradient descent of momentum ``1 - friction``."""
    problem = make_problem("classification", epochs=12, batch_size=48, dtype=F64)
    problem = replace(problem, network=known_start)
    settings = {"temperature": 0.0, "preconditioned": False, "prior_precision": 0.5}
    fitted = fit(replace(method, learning_rate=0.2, **settings), problem)
    assert isinstance(fitted, PointModel)

    def factor(progress: float) -> float:
        if n_cycles is None:
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (progress * n_cycles % 1)))

    expected = descend(problem, momentum, factor)
    for ours, theirs in zip(fitted.network.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs.detach())


@pytest.mark.parametrize(
    ("method", "adapted", "hot", "kept"),
    [
        (SGLD(burn_in=0.4, n_kept=3), range(40), range(100), [60, 80, 100]),
        (SGLD(burn_in=0.0, n_kept=2), range(10), range(100), [50, 100]),
        (
            CyclicalSGHMC(n_cycles=1, exploration=0.6, n_kept_per_cycle=2),
            range(64),
            range(60, 100),
            [82, 100],
        ),
    ],
    ids=["sgld", "no burn-in", "cyclical_sghmc"],
)
def test_when_a_chain_adapts_is_noisy_and_is_kept(
    method: LangevinMethod, adapted: range, hot: range, kept: list[int]
) -> None:
    """Of 100 steps: burn-in or exploration, and the tenth that is for settling."""
    recipe = method.recipe()
    assert recipe.langevin is not None
    steps = [step / 100 for step in range(100)]
    assert [i for i, p in enumerate(steps) if recipe.langevin.adapts(p)] == list(adapted)
    assert [i for i, p in enumerate(steps) if recipe.langevin.noise_schedule(p)] == list(hot)
    assert recipe.samples_at is not None
    assert list(recipe.samples_at(100)) == kept


@pytest.mark.parametrize(
    "method",
    [
        BayesianHypernet(target="weights", initial_sd=0.3, width=8),
        BayesianHypernet(target="gains", flow="affine", initial_sd=0.3),
        BayesByHypernet(target="weights", initial_sd=0.3),
        BayesByHypernet(target="gains", generator="affine", initial_sd=0.3),
        BayesByBackprop(initial_sd=0.3),
    ],
    ids=lambda method: type(method).__name__,
)
def test_what_is_random_starts_around_the_network_with_its_sd(method: TrainedMethod) -> None:
    """A generator is scaled on 256 draws (a relative error of 0.044), the rest is exact."""
    model = make_model(method)
    assert isinstance(model, RandomModel)
    n = 4000
    with torch.no_grad():
        drawn = model.drawer(rng())(n)
    sds = drawn.std(0)
    assert ((sds / 0.3 - 1).abs() < 4 * math.sqrt(0.044**2 + 1 / (2 * n))).all()
    if isinstance(method, BayesByBackprop):
        tensors = [p for layer in model.layers for p in (layer.mean, layer.bias_mean)]
        start = torch.cat([p.detach().flatten() for p in tensors])
    else:
        start = model.target.start
    off = (drawn.mean(0) - start).abs()
    assert (off < 4 * 0.3 * math.sqrt(1 / 256 + 1 / n)).all()


@pytest.mark.parametrize("max_sd", [None, 0.25])
def test_settings_of_a_multiplied_posterior_reach_every_layer(max_sd: float | None) -> None:
    """Its KL given z is that of torch's Gaussians; a bound below the start rules it."""
    method = MultiplicativeNormalizingFlow(
        n_flows=3, width=7, prior_sd=0.6, initial_sd=0.25, max_sd=max_sd
    )
    model = make_model(method, "images")
    assert len(model.layers) == 3
    for layer in model.layers:
        assert isinstance(layer, MultiplicativeLayer)
        q = layer.given_z(torch.full((layer.n_z,), 0.1, dtype=F64))
        sd = 0.25 if max_sd is None else 0.25 / math.sqrt(2)
        torch.testing.assert_close(q.weight_variance, torch.full_like(q.weight, sd**2))
        expected = sum(
            kl_divergence(Normal(mean, sd), Normal(0.0, 0.6)).sum() for mean in (q.weight, q.bias)
        )
        torch.testing.assert_close(q.kl, expected)
        for flow in (layer.flow, layer.auxiliary_flow):
            blocks = list(flow.blocks)
            assert [block.hidden.weight.shape[0] for block in blocks] == [7, 7, 7]


def test_empirical_bayes_takes_the_best_prior_of_each_layers_weights() -> None:
    """Of scale ``mean(mu^2 + sd^2)``, for which the KL is least; biases keep ``prior_sd``."""
    model = make_model(BayesByBackprop(empirical_bayes=True, prior_sd=0.4, initial_sd=0.2))
    inputs = make_problem("classification", dtype=F64).train.inputs
    _, kl = model(inputs, model.draw_noise(inputs, rng()))
    expected = torch.zeros((), dtype=F64)
    for layer in model.layers:
        best = (layer.mean.square() + 0.2**2).mean().sqrt()
        expected = expected + kl_divergence(Normal(layer.mean, 0.2), Normal(0.0, best)).sum()
        expected = expected + kl_divergence(Normal(layer.bias_mean, 0.2), Normal(0.0, 0.4)).sum()
    torch.testing.assert_close(kl, expected)


@pytest.mark.parametrize("warm_up", [True, False])
def test_without_its_warm_up_the_kl_of_sparse_dropout_has_all_its_weight(warm_up: bool) -> None:
    heard = Listener()
    problem = make_problem("classification", epochs=20)
    fit(SparseVariationalDropout(kl_warm_up=warm_up), problem, listener=heard)
    weights = [metrics["kl_weight"] for _, metrics in heard.points]
    assert weights[0] == (0 if warm_up else 1)
    assert set(weights[2:]) == {1}


def test_a_teacher_is_asked_for_as_many_samples_as_it_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of all training inputs; the mean of so many masks is what the student learns."""
    asked = []

    def sample(self: PointModel, inputs: torch.Tensor, n_samples: int, **rest: object) -> object:
        asked.append((len(inputs), n_samples))
        return plain(self, inputs, n_samples, **rest)

    plain = PointModel.sample
    monkeypatch.setattr(PointModel, "sample", sample)
    method = Distilled(teacher="maximum_likelihood", n_teacher_samples=37)
    fit(method, make_problem("classification", epochs=1))
    assert asked.count((48, 37)) == 1


def test_speed_and_scale_reach_the_discriminator() -> None:
    """Its parameters are over the speed; the training loop divides its loss by n."""
    slow, fast = (
        make_model(BayesByHypernet(kl_estimator="discriminator", discriminator_speed=speed)).kl
        for speed in (2.0, 8.0)
    )
    assert isinstance(slow, Discriminator)
    for one, other in zip(slow.parameters(), fast.parameters(), strict=True):
        torch.testing.assert_close(one, 4 * other)
    draws = torch.randn(9, 3, dtype=F64, generator=rng())
    torch.testing.assert_close(slow.logits(draws), fast.logits(draws))
    assert slow.loss_scale == 48
