"""What a fit promises: replicas, warm starts, global state, an exact posterior."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
import torch
from torch import nn

from bhnbench.contract import Method, Predictive, Problem, Split
from bhnbench.errors import ContractError
from bhnbench.likelihoods import Gaussian
from bhnbench.testing.problems import make_problem
from bhnbench_methods.bayes_by_backprop import BayesByBackprop
from bhnbench_methods.bayesian_hypernet import BayesianHypernet
from bhnbench_methods.deep_ensemble import DeepEnsemble
from bhnbench_methods.maximum_likelihood import MaximumLikelihood
from bhnbench_methods.mc_dropout import MCDropout
from bhnbench_methods.models import structure
from bhnbench_methods.sgld import SGLD
from bhnbench_methods.snapshot_ensemble import SnapshotEnsemble

METHODS = [
    MaximumLikelihood(weight_decay=0.1),
    MCDropout(rate=0.3),
    DeepEnsemble(n_members=2),
    BayesianHypernet(width=8, data_init=True),
    BayesianHypernet(width=8, flow="iaf"),
    BayesianHypernet(width=8, flow="spline", n_coupling_layers=2),
    BayesianHypernet(width=8, target="weights", n_draws=3),
]
by_name = pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Log(list[tuple[int, dict[str, float]]]):
    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        self.append((step, dict(metrics)))


def fit(
    method: Method, problem: Problem, seed: int = 0, start: Predictive | None = None
) -> tuple[Predictive, Log]:
    log = Log()
    return method.fit(problem, rng=rng(seed), report=log, warm_start=start), log


def samples(fitted: Predictive, problem: Problem) -> torch.Tensor:
    return fitted.sample(problem.validation.inputs, 5, rng=rng(9))


def fit_many(method: Method, problems: list[Problem]) -> tuple[list[Predictive], list[Log]]:
    logs = [Log() for _ in problems]
    rngs = [rng(seed) for seed in range(len(problems))]
    nothing = [None] * len(problems)
    return method.fit_many(problems, rngs=rngs, reports=logs, warm_starts=nothing), logs


def dropout_network() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.5), nn.Tanh(), nn.Linear(8, 3))


@by_name
@pytest.mark.parametrize("case", ["alike", "batchnorm", "sizes", "own dropout"])
def test_many_fits_equal_a_loop(method: Method, case: str) -> None:
    kind = "images" if case == "batchnorm" else "classification"
    problems = [make_problem(kind, seed=s, dtype=torch.float64) for s in range(3)]
    if case == "sizes":
        problems[1] = replace(problems[1], train=problems[1].validation)
    if case == "own dropout":
        problems = [replace(problem, network=dropout_network) for problem in problems]
    fits, logs = fit_many(method, problems)
    for seed, (problem, together, log) in enumerate(zip(problems, fits, logs, strict=True)):
        alone, expected = fit(method, problem, seed)
        torch.testing.assert_close(samples(together, problem), samples(alone, problem))
        assert [step for step, _ in log] == [step for step, _ in expected]
        for (_, ours), (_, theirs) in zip(log, expected, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-9)


class Activated(nn.Module):
    def __init__(self, activation: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.first, self.last, self.activation = nn.Linear(2, 8), nn.Linear(8, 3), activation

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.last(self.activation(self.first(inputs)))


def sequential(activation: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(2, 8), activation, nn.Linear(8, 3))


@pytest.mark.parametrize(
    "networks",
    [
        (lambda: sequential(nn.ReLU()), lambda: sequential(nn.Tanh())),
        (lambda: sequential(nn.LeakyReLU(0.1)), lambda: sequential(nn.LeakyReLU(0.9))),
        (lambda: Activated(torch.relu), lambda: Activated(torch.tanh)),
    ],
    ids=["modules", "settings", "functions"],
)
@by_name
def test_networks_of_equal_shapes_keep_their_own_forward(
    method: Method, networks: tuple[Callable[[], nn.Module], ...]
) -> None:
    problems = [
        replace(make_problem("classification", epochs=5, dtype=torch.float64), network=network)
        for network in networks
    ]
    fits, _ = fit_many(method, problems)
    for seed, (problem, together) in enumerate(zip(problems, fits, strict=True)):
        alone, _ = fit(method, problem, seed)
        torch.testing.assert_close(samples(together, problem), samples(alone, problem))


@by_name
def test_models_of_one_architecture_have_one_structure(method: Method) -> None:
    """However their network was made: otherwise replicas would never be trained together."""
    problems = [
        replace(make_problem("images", seed=s), network=lambda: make_problem("images").network())
        for s in range(2)
    ]
    first, second = (structure(method.make_model(problem)) for problem in problems)
    assert first == second


class Branching(nn.Module):
    """Asks for the value of a tensor, which no vmap can tell."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(2, 8), nn.Linear(8, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = self.first(inputs).tanh()
        return self.last(hidden / 2 if hidden.abs().max() > 2 else hidden)  # that is never


class Straight(Branching):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(inputs).tanh())


@pytest.mark.filterwarnings("ignore::bhnbench.errors.PosteriorWarning")
@pytest.mark.parametrize(
    "method",
    [
        DeepEnsemble(n_members=3),
        DeepEnsemble(n_members=2, adversarial_step=0.01),
        BayesByBackprop(),
        BayesianHypernet(width=8),
        MCDropout(),
        SGLD(n_kept=3),
        SnapshotEnsemble(n_cycles=2),
    ],
    ids=lambda method: type(method).__name__,
)
def test_a_network_that_vmap_cannot_run_gives_what_another_does(method: Method) -> None:
    problem = make_problem("classification", epochs=4, dtype=torch.float64)
    branching, straight = (
        samples(fit(method, replace(problem, network=network))[0], problem)
        for network in (Branching, Straight)
    )
    torch.testing.assert_close(branching, straight)


def test_ensemble_of_one_equals_its_member() -> None:
    problem = make_problem("images")
    ensemble, log = fit(DeepEnsemble(n_members=1), problem)
    member, expected = fit(MaximumLikelihood(), problem)
    torch.testing.assert_close(
        samples(ensemble, problem), samples(member, problem), rtol=0, atol=0
    )
    assert log == expected


def test_members_do_not_depend_on_their_number() -> None:
    problem = make_problem("images", dtype=torch.float64)
    two, four = (fit(DeepEnsemble(n_members=n), problem)[0] for n in (2, 4))
    inputs = problem.validation.inputs
    torch.testing.assert_close(two.sample(inputs, 2, rng=rng()), four.sample(inputs, 2, rng=rng()))


@by_name
def test_warm_start_goes_on(method: Method) -> None:
    problem = make_problem("classification", n=64, epochs=40)
    first, cold = fit(method, problem)
    before = samples(first, problem)
    short = replace(problem, epochs=1)
    _, cold_again = fit(method, short)
    second, warm = fit(method, short, start=first)
    assert warm[0][1]["train_nll"] < cold_again[0][1]["train_nll"]
    assert warm[0][1]["train_nll"] == pytest.approx(cold[-1][1]["train_nll"], abs=0.4)
    torch.testing.assert_close(samples(first, problem), before, rtol=0, atol=0)
    assert not torch.equal(samples(second, problem), before)


@by_name
def test_warm_start_of_another_method_is_refused(method: Method) -> None:
    problem = make_problem("classification")
    other = MCDropout() if isinstance(method, MaximumLikelihood) else MaximumLikelihood()
    start, _ = fit(other, problem)
    with pytest.raises(ContractError, match="warm_start must be"):
        fit(method, problem, start=start)


@pytest.mark.filterwarnings("ignore::bhnbench.errors.PosteriorWarning")
def test_warm_start_of_a_method_with_the_same_model_is_refused() -> None:
    """What samples or anneals differently left parameters that mean something else."""
    problem = make_problem("classification", epochs=4)
    starts = [fit(method, problem)[0] for method in (SGLD(n_kept=2), SnapshotEnsemble())]
    with pytest.raises(ContractError, match="but got one of SGLD"):
        fit(MaximumLikelihood(), problem, start=starts[0])
    with pytest.raises(ContractError, match="but got one of SnapshotEnsemble"):
        fit(MaximumLikelihood(), problem, start=starts[1])
    with pytest.raises(ContractError, match="but got one of MaximumLikelihood"):
        fit(SnapshotEnsemble(), problem, start=fit(MaximumLikelihood(), problem)[0])


@by_name
def test_warm_start_from_a_pickle(method: Method) -> None:
    problem = make_problem("classification", epochs=2)
    start, _ = fit(method, problem)
    expected, _ = fit(method, problem, start=start)
    again, _ = fit(method, problem, start=pickle.loads(pickle.dumps(start)))
    torch.testing.assert_close(samples(again, problem), samples(expected, problem))


def test_warm_start_of_another_architecture_is_refused() -> None:
    problem = make_problem("classification")
    start, _ = fit(BayesianHypernet(width=8), problem)
    with pytest.raises(ContractError, match=r"differ: flow\.blocks"):
        fit(BayesianHypernet(width=9), problem, start=start)
    start, _ = fit(DeepEnsemble(n_members=2), problem)
    with pytest.raises(ContractError, match="of 3 members, but got a deep ensemble of 2"):
        fit(DeepEnsemble(n_members=3), problem, start=start)


@by_name
def test_global_random_state_is_untouched_and_unused(method: Method) -> None:
    problem = make_problem("images")
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = samples(fit(method, problem)[0], problem)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    second = samples(fit(method, problem)[0], problem)
    torch.testing.assert_close(second, first, rtol=0, atol=0)


@pytest.mark.parametrize(
    "method",
    [method for method in METHODS if getattr(method, "target", "gains") == "gains"],
    ids=lambda method: type(method).__name__,
)
def test_frozen_parameters_and_bare_ones(method: Method) -> None:
    """A frozen parameter keeps its value; a bare one is trained."""

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
            self.raw_scale = nn.Parameter(torch.zeros(1))
            self.offset = nn.Parameter(torch.full((1,), 0.25), requires_grad=False)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            mean = self.layers(inputs) + self.offset
            return torch.cat((mean, self.raw_scale.expand_as(mean)), dim=-1)

    problem = replace(make_problem("regression", epochs=5), network=Network)
    fitted, _ = fit(method, problem)
    model = fitted.members[0] if isinstance(method, DeepEnsemble) else fitted
    network = (model.target if isinstance(method, BayesianHypernet) else model).network
    assert network.offset.item() == 0.25
    assert network.raw_scale.item() != 0
    raw_scale = fitted.sample(problem.train.inputs, 1, rng=rng())[0, :, 1]
    torch.testing.assert_close(raw_scale, network.raw_scale.expand(len(raw_scale)))


@by_name
def test_more_weight_decay_or_precision_gives_smaller_weights(method: Method) -> None:
    name = "weight_decay"
    if isinstance(method, BayesianHypernet):  # precision holds values at the prior's centre
        name, method = "prior_precision", replace(method, prior_mean="zero")
    problem = replace(make_problem("classification", epochs=60), batch_size=48)
    sizes = []
    for value in (0.01, 1000.0):
        fitted, _ = fit(replace(method, learning_rate=0.01, **{name: value}), problem)
        sizes.append(samples(fitted, problem).square().mean().item())
    assert sizes[1] < 0.5 * sizes[0]


def test_supports() -> None:
    problem = make_problem("classification")
    one_layer = replace(problem, network=lambda: nn.Linear(2, 3))
    no_layer = replace(problem, network=lambda: nn.PReLU(2))
    one_unit = replace(problem, network=lambda: nn.Linear(2, 1))
    for method in METHODS:
        assert method.supports(problem) is None
    assert MCDropout().supports(one_layer) == (
        "it needs at least two Linear or Conv layers, but the network has 1"
    )
    assert BayesianHypernet().supports(one_layer) is None
    assert BayesianHypernet().supports(no_layer) == (
        "it needs a Linear or Conv layer, but the network has none"
    )
    assert BayesianHypernet().supports(one_unit) == (
        "flow realnvp needs two gains or more, but the network has one"
    )
    assert BayesianHypernet(flow="affine").supports(one_unit) is None


NOISE_SD = 0.5


class LinearRegression(nn.Module):
    """Mean ``sum_j gain_j features_j``: directions of one input are +-1, so only gains matter."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Linear(1, 2, bias=False)
        nn.init.ones_(self.weights.weight)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        weights = self.weights(torch.ones_like(features[:, :1]))
        mean = (weights * features).sum(-1, keepdim=True)
        raw_scale = math.log(math.expm1(NOISE_SD - 1e-6))
        return torch.cat((mean, torch.full_like(mean, raw_scale)), dim=-1)


@pytest.mark.parametrize("flow", ["affine", "realnvp"])
def test_bayesian_linear_regression_is_exact(flow: str) -> None:
    """The ELBO reaches the log evidence, less what a factorised posterior must lose.

    Posterior precision L = X'X / sd^2 + I, mean L^-1 X'y / sd^2. The best factorised Gaussian
    has the posterior mean and variances 1 / L_jj; its KL is (sum log L_jj - log det L) / 2.
    """
    n = 12
    features = torch.randn(n, 2, dtype=torch.float64, generator=rng(3))
    features[:, 1] = 0.9 * features[:, 0] + 0.4 * features[:, 1]  # correlated posterior
    noise = torch.randn(n, 1, dtype=torch.float64, generator=rng(4))
    targets = features @ torch.tensor([[1.0], [0.5]], dtype=torch.float64) + NOISE_SD * noise
    data = Split(features, targets)
    problem = Problem(
        train=data,
        validation=Split(features[:0], targets[:0]),
        likelihood=Gaussian(),
        network=LinearRegression,
        epochs=1500,
        batch_size=n,
    )
    method = BayesianHypernet(
        flow=flow,
        n_coupling_layers=2,
        width=16,
        initial_sd=0.5,
        prior_mean="zero",
        learning_rate=0.01,
        lr_decay=True,
        kl_annealing=False,
    )
    fitted, _ = fit(method, problem)
    precision = features.mT @ features / NOISE_SD**2 + torch.eye(2)
    mean = torch.linalg.solve(precision, features.mT @ targets / NOISE_SD**2).squeeze()
    covariance = features @ features.mT + NOISE_SD**2 * torch.eye(n)
    evidence = torch.distributions.MultivariateNormal(torch.zeros(n), covariance).log_prob(
        targets.squeeze()
    )
    factorised = 0.5 * (precision.diagonal().log().sum() - torch.logdet(precision)).item()
    assert factorised > 0.3  # or the two flows could not be told apart

    n_samples = 10_000
    eps = torch.randn(n_samples, 2, dtype=torch.float64, generator=rng(5))
    gains, kl = fitted.values_and_kl(eps)
    means = gains @ features.mT
    log_lik = torch.distributions.Normal(means, NOISE_SD).log_prob(targets.squeeze()).sum(1)
    elbo = log_lik - kl
    error = 4 * elbo.std().item() / math.sqrt(n_samples)
    gap = (evidence - elbo.mean()).item()
    lost = factorised if flow == "affine" else 0.0
    assert lost - error < gap < lost + error + 0.05
    slack = 4 * gains.std(0) / math.sqrt(n_samples) + 0.03
    assert ((gains.mean(0) - mean).abs() < slack).all()
