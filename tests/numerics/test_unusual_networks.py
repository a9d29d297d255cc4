"""Networks with state, sharing or habits that the usual layers do not have."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from bhnbench.contract import Problem, Split
from bhnbench.errors import ContractError, DivergedError, UnsupportedError
from bhnbench.likelihoods import Categorical
from bhnbench.plugins import load_method
from bhnbench_methods.bayes_by_backprop import BayesByBackprop
from bhnbench_methods.deep_ensemble import DeepEnsemble
from bhnbench_methods.dropout import Dropout
from bhnbench_methods.laplace import Laplace
from bhnbench_methods.maximum_likelihood import MaximumLikelihood
from bhnbench_methods.models import negative_log_prior
from bhnbench_methods.streams import Streams

X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
T = (X[:, 0] > 0).long()
METHODS = ["maximum_likelihood", "mc_dropout", "bayes_by_backprop", "deep_ensemble"]


def make_problem(network, **changes):
    problem = Problem(
        train=Split(X[:40], T[:40]),
        validation=Split(X[40:], T[40:]),
        likelihood=Categorical(2),
        network=network,
        epochs=3,
        batch_size=16,
    )
    return replace(problem, **changes)


def silent(step, figures): ...


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def fit(method, problem, *, seed=0, **options):
    return method.fit(problem, rng=rng(seed), report=options.pop("report", silent), **options)


def samples(predictive, n=4):
    return predictive.sample(X, n, rng=rng(1))


class Features(nn.Module):
    """Random features that are a plain tensor, a buffer of any kind, or an order in a list."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.hidden, self.head, self.kind = nn.Linear(4, 8), nn.Linear(8, 2), kind
        self.order = list(range(4))
        if kind == "list":
            self.order = torch.randperm(4).tolist()
        directions = 1.0 + torch.rand(8)
        if kind == "tensor":
            self.directions = directions
        else:
            self.register_buffer("directions", directions, persistent=kind == "buffer")

    def forward(self, inputs):
        return self.head(torch.sin(self.hidden(inputs[:, self.order]) * self.directions))


KINDS = ["tensor", "buffer", "hidden buffer", "list"]
TOGETHER = [(name, kind) for name in METHODS for kind in KINDS]
TOGETHER.remove(("deep_ensemble", "list"))  # refused, as its own test says


@pytest.mark.parametrize(("name", "kind"), TOGETHER)
def test_replicas_have_features_of_their_own(name, kind):
    method, problem = load_method(name)(), make_problem(lambda: Features(kind))
    apart = [fit(method, problem, seed=seed) for seed in (1, 2)]
    together = method.fit_many(
        [problem] * 2, rngs=[rng(1), rng(2)], reports=[silent] * 2, warm_starts=[None] * 2
    )
    for one, other in zip(apart, together, strict=True):
        torch.testing.assert_close(samples(one, 5), samples(other, 5), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["tensor", "hidden buffer"])
def test_members_predict_by_features_of_their_own(kind):
    ensemble = fit(DeepEnsemble(n_members=3), make_problem(lambda: Features(kind)))
    for member, outputs in zip(ensemble.members, samples(ensemble, 3), strict=True):
        torch.testing.assert_close(member.network(X), outputs)
    directions = [member.network.directions for member in ensemble.members]
    assert not torch.equal(directions[0], directions[1])


def test_members_that_differ_in_more_than_tensors_are_refused():
    with pytest.raises(UnsupportedError, match="must differ in tensors alone, but module"):
        fit(DeepEnsemble(n_members=3), make_problem(lambda: Features("list")))


@pytest.mark.parametrize("kind", ["tensor", "buffer", "hidden buffer"])
@pytest.mark.parametrize("name", METHODS)
def test_a_warm_start_keeps_the_features(name, kind):
    problem = make_problem(lambda: Features(kind))
    first = fit(load_method(name)(), problem)
    still = load_method(name)(learning_rate=1e-8)
    again = fit(still, replace(problem, epochs=1), seed=5, warm_start=first)
    torch.testing.assert_close(samples(again), samples(first), rtol=1e-3, atol=1e-3)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.second.weight = self.first.weight

    def forward(self, inputs):
        return self.head(self.second(self.first(inputs).relu()).relu())


def test_weights_that_layers_share_have_one_prior():
    network = Tied()
    expected = 1.5 * sum(w.square().sum() for w in (network.first.weight, network.head.weight))
    torch.testing.assert_close(negative_log_prior(network, X, precision=3.0), expected)


def test_dropped_weights_that_layers_share_have_one_prior():
    method = Dropout(rate=0.5, layer_rates="0.0, 0.5", weight_decay=3.0)
    model = method.make_model(make_problem(Tied))
    _, kl = model(X[:5], model.draw_noise(X[:5], rng()))
    gated, tied = model.gates[0].layer.weight, next(model.parameters())
    expected = 1.5 * (gated.square().sum() / 0.5 + tied.square().sum())
    torch.testing.assert_close(kl, expected)


def test_laplace_refuses_weights_that_layers_share():
    reason = Laplace(subset="all").supports(make_problem(Tied))
    assert reason == "it needs weights that belong to one layer each, but some layers share them"


def test_a_network_that_changes_its_inputs_is_refused_and_the_data_stay():
    class Shifting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, inputs):
            return self.layer(inputs.sub_(0.5))

    problem, before = make_problem(Shifting), X.clone()
    for name in METHODS:
        assert "changes them in place" in load_method(name)().supports(problem)
        with pytest.raises(ContractError, match="must leave its inputs as they are"):
            fit(load_method(name)(), problem)
    assert torch.equal(X, before)


def test_a_known_bias_has_no_share_in_the_kl_of_a_mixture():
    def kl_of(bias):
        def network():
            layer = nn.Linear(4, 2, bias=bias)
            with torch.no_grad():
                layer.weight.fill_(0.3)
            if bias:
                layer.bias.requires_grad_(False).fill_(5.0)
            return layer

        model = BayesByBackprop(prior="scale_mixture").make_model(make_problem(network))
        return model(X[:5], torch.ones(8))[1]

    torch.testing.assert_close(kl_of(bias=True), kl_of(bias=False))


def test_who_listens_may_draw_random_numbers():
    def network():
        return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 2))

    listening = fit(MaximumLikelihood(), make_problem(network), report=lambda *_: torch.rand(3))
    quiet = fit(MaximumLikelihood(), make_problem(network))
    assert torch.equal(samples(listening), samples(quiet))


@pytest.mark.parametrize(("earlier", "later"), [(3, 2), (2, 3)])
def test_a_prior_of_another_depth_is_told(earlier, later):
    def deep(n):
        layers = [m for _ in range(n - 1) for m in (nn.Linear(4, 4), nn.ReLU())]
        return lambda: nn.Sequential(*layers_of(layers), nn.Linear(4, 2))

    def layers_of(layers):
        return [nn.Linear(4, 4) if isinstance(m, nn.Linear) else nn.ReLU() for m in layers]

    posterior = fit(BayesByBackprop(), make_problem(deep(earlier)))
    problem = make_problem(deep(later), prior=posterior)
    assert "prior must be of the same network" in BayesByBackprop().supports(problem)
    with pytest.raises(ContractError, match="prior must be of the same network"):
        fit(BayesByBackprop(), problem)


@pytest.mark.parametrize("changes", [{"batch_size": 1}, {"train": Split(X[:1], T[:1])}])
def test_batch_normalisation_of_one_example_is_told(changes):
    def network():
        return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))

    for name in METHODS:
        reason = load_method(name)().supports(make_problem(network, **changes))
        assert "Expected more than 1 value per channel" in reason


def test_laplace_does_not_end_the_process():
    large = make_problem(
        lambda: nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)),
        train=Split(1e20 * X[:40], T[:40]),
        validation=Split(1e20 * X[40:], T[40:]),
    )
    with pytest.raises(DivergedError, match="must have eigenvalues"):
        fit(Laplace(), large)


@pytest.mark.parametrize("n_samples", ["3", 2.0, None])
def test_a_number_of_samples_is_a_whole_number(n_samples):
    predictive = fit(MaximumLikelihood(), make_problem(lambda: nn.Linear(4, 2)))
    with pytest.raises(ContractError, match="n_samples must be a whole number"):
        predictive.sample(X, n_samples, rng=rng())


def test_streams_differ_and_leave_each_other_alone():
    one, other = (Streams.draw(rng(3), torch.device("cpu")) for _ in range(2))
    seeds = {one.init, one.forward, one.order.initial_seed(), one.noise.initial_seed()}
    assert len(seeds) == 4
    torch.rand(100, generator=one.order)
    drawn = [torch.rand(5, generator=streams.noise) for streams in (one, other)]
    assert torch.equal(*drawn)
