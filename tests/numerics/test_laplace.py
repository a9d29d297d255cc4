"""Laplace's Gaussian against closed forms, Gauss-Newton matrices by hand and laplace-torch."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.util import find_spec

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev, vmap
from torch.utils.data import DataLoader, TensorDataset

from bhnbench.contract import Problem, Split
from bhnbench.errors import ContractError, UnsupportedError
from bhnbench.likelihoods import Categorical, Gaussian
from bhnbench.testing.fitting import Listener, draw, fit, fit_rng
from bhnbench.testing.problems import make_problem
from bhnbench_methods import predictive
from bhnbench_methods.curvature import best_precision, curvature_of, scripting_silenced
from bhnbench_methods.laplace import Laplace
from bhnbench_methods.maximum_likelihood import MaximumLikelihood
from bhnbench_methods.soft_targets import SoftCategorical

needs_library = pytest.mark.skipif(
    find_spec("laplace") is None, reason="laplace-torch is not installed; `make setup` does it"
)
STRUCTURES = ("kron", "diag", "full")


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def problem_of(
    network: Callable[[], nn.Module], likelihood: object, rng: torch.Generator, n: int = 30
) -> Problem:
    """Random inputs and targets of three numbers, or one of three classes, each."""
    inputs = torch.randn(n, 3, generator=rng, dtype=torch.float64)
    targets = torch.randint(3, (n,), generator=rng)
    if isinstance(likelihood, Gaussian):
        targets = torch.randn(n, 1, generator=rng, dtype=torch.float64)
    split = Split(inputs, targets)
    return Problem(split, split, likelihood, network, epochs=2, batch_size=8)


class NoisyLine(nn.Module):
    """A linear mean, and a noise scale that is a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Linear(3, 1)
        self.raw_scale = nn.Parameter(torch.tensor(-0.5))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        mean = self.mean(inputs)
        return torch.cat([mean, self.raw_scale.expand_as(mean)], dim=1)


def small_network(n_outputs: int = 3) -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, n_outputs))


def covariance(posterior: nn.Module) -> torch.Tensor:
    """Of the random weights."""
    identity = torch.eye(sum(posterior.curvature.sizes), dtype=torch.float64)
    root = posterior.curvature.inverse_root(identity, posterior.precision)
    return root.T @ root


def dense(curvature: nn.Module) -> torch.Tensor:
    """The matrix itself."""
    n = sum(curvature.sizes)
    root = curvature.inverse_root(torch.eye(n, dtype=torch.float64), 1.0)
    return torch.linalg.inv(root.T @ root) - torch.eye(n, dtype=torch.float64)


def gauss_newton(
    network: nn.Module, inputs: torch.Tensor, information: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """``sum_i J_i^T F_i J_i`` with the information ``F_i`` in the outputs of example i."""
    params = {k: p.detach() for k, p in network.named_parameters() if p.requires_grad}

    def outputs(params: dict[str, torch.Tensor]) -> torch.Tensor:
        return functional_call(network, params, (inputs,))

    jacobian = torch.cat([j.flatten(2) for j in jacrev(outputs)(params).values()], dim=2)
    return torch.einsum("iap,iab,ibq->pq", jacobian, information(outputs(params)), jacobian)


def softmax_information(outputs: torch.Tensor) -> torch.Tensor:
    probs = outputs.softmax(-1)
    return torch.diag_embed(probs) - probs.unsqueeze(2) * probs.unsqueeze(1)


def gaussian_information(outputs: torch.Tensor) -> torch.Tensor:
    """The expected Hessian of the nll in the outputs.

    The nll is a quadratic in the target, so that its mean over the two targets one standard
    deviation from the mean is its expectation.
    """

    def nll(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return -Gaussian().log_prob(output, target)

    def hessian(output: torch.Tensor, sign: float) -> torch.Tensor:
        mean, sd = Gaussian().split(output)
        return jacrev(jacrev(nll))(output, (mean + sign * sd).detach())

    return sum(vmap(partial(hessian, sign=sign))(outputs) for sign in (1.0, -1.0)) / 2


# The curvature


@needs_library
def test_covariance_is_that_of_bayesian_linear_regression(rng):
    problem = problem_of(NoisyLine, Gaussian(), rng)
    posterior = fit(Laplace(hessian="full", prior_precision=0.7), problem)
    _, sd = Gaussian().split(posterior.point.network(problem.train.inputs)[0])
    design = torch.cat([problem.train.inputs, torch.ones(30, 1, dtype=torch.float64)], dim=1)
    precision = design.T @ design / sd**2 + 0.7 * torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close(covariance(posterior), torch.linalg.inv(precision))


def partly_frozen(*frozen: str) -> nn.Module:
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))
    for name in frozen:
        network.get_parameter(name).requires_grad_(False)
    return network


@needs_library
@pytest.mark.parametrize(
    ("frozen", "random"),
    [
        (("0.weight", "0.bias"), ["2.weight", "2.bias"]),
        (("2.weight", "2.bias"), ["0.weight", "0.bias"]),
        (("0.weight", "0.bias", "2.bias"), ["2.weight"]),
    ],
)
@pytest.mark.parametrize("subset", ["last_layer", "all"])
def test_what_is_frozen_is_known(frozen, random, subset, rng):
    network = partial(partly_frozen, *frozen)
    method = Laplace(subset=subset, hessian="diag", prior_precision=1.0)
    posterior = fit(method, problem_of(network, Categorical(3), rng))
    assert posterior.names == random
    assert draw(posterior, torch.randn(5, 3, dtype=torch.float64)).isfinite().all()


@needs_library
def test_outputs_have_the_exact_predictive_variance(rng):
    problem = problem_of(NoisyLine, Gaussian(), rng)
    posterior = fit(Laplace(hessian="full", prior_precision=0.7), problem)
    design = torch.cat([problem.train.inputs, torch.ones(30, 1, dtype=torch.float64)], dim=1)
    expected = (design @ covariance(posterior) * design).sum(1)
    n = 20_000
    outputs = draw(posterior, problem.train.inputs, n_samples=n)
    error = expected * math.sqrt(2 / n)  # of the variance of a Gaussian
    assert ((outputs[..., 0].var(0) - expected).abs() < 4.5 * error).all()
    assert (outputs[..., 1] == outputs[0, 0, 1]).all(), "the noise scale is no weight of a layer"


@needs_library
def test_kron_is_exact_for_one_linear_output(rng):
    problem = problem_of(NoisyLine, Gaussian(), rng)
    network = NoisyLine().double()
    network.requires_grad_(False).mean.weight.requires_grad_(True)
    _, sd = Gaussian().split(network(problem.train.inputs)[0])
    inputs = problem.train.inputs
    torch.testing.assert_close(
        dense(curvature_of(network, problem, "kron")), inputs.T @ inputs / sd**2
    )


@needs_library
def test_curvature_of_logistic_regression_is_the_hessian(rng):
    problem = problem_of(partial(nn.Linear, 3, 3), Categorical(3), rng)
    network = nn.Linear(3, 3).double()
    shape = network.weight.shape

    def nll(flat: torch.Tensor) -> torch.Tensor:
        weight, bias = flat.split_with_sizes([9, 3])
        outputs = nn.functional.linear(problem.train.inputs, weight.view(shape), bias)
        return -problem.likelihood.log_prob(outputs, problem.train.targets).sum()

    at = nn.utils.parameters_to_vector(network.parameters()).detach()
    hessian = torch.autograd.functional.hessian(nll, at)
    torch.testing.assert_close(dense(curvature_of(network, problem, "full")), hessian)
    diagonal = hessian.diagonal().diag()
    torch.testing.assert_close(dense(curvature_of(network, problem, "diag")), diagonal)


@needs_library
@pytest.mark.parametrize("structure", ["diag", "full"])
@pytest.mark.parametrize("kind", ["classes", "values"])
def test_curvature_is_the_gauss_newton_matrix(rng, kind, structure):
    classes = kind == "classes"
    likelihood = Categorical(3) if classes else Gaussian()
    network = small_network(3 if classes else 2).double()
    problem = problem_of(small_network, likelihood, rng, n=140)  # in two batches
    information = softmax_information if classes else gaussian_information
    expected = gauss_newton(network, problem.train.inputs, information)
    expected = expected.diagonal().diag() if structure == "diag" else expected
    actual = dense(curvature_of(network, problem, structure))
    torch.testing.assert_close(actual, expected)


@needs_library
def test_kron_of_a_last_layer_is_the_product_of_the_mean_factors(rng):
    network = small_network().double()
    problem = problem_of(small_network, Categorical(3), rng, n=140)
    network[0].requires_grad_(False)
    hidden = network[:2](problem.train.inputs).detach()
    information = softmax_information(network(problem.train.inputs)).sum(0).detach()
    weight = torch.kron(information, hidden.T @ hidden / 140)
    expected = torch.block_diag(weight, information)
    torch.testing.assert_close(dense(curvature_of(network, problem, "kron")), expected)


@needs_library
@pytest.mark.parametrize("structure", STRUCTURES)
def test_gaussian_and_evidence_are_the_librarys(rng, structure):
    with scripting_silenced():
        import laplace
    problem = problem_of(small_network, Categorical(3), rng)
    network = small_network().double()
    theirs = laplace.Laplace(network, "classification", "all", structure)
    data = TensorDataset(problem.train.inputs, problem.train.targets)
    theirs.fit(DataLoader(data, batch_size=7))
    ours = curvature_of(network, problem, structure)
    weights = nn.utils.parameters_to_vector(network.parameters()).detach()
    best = best_precision(ours, weights)
    evidence = [theirs.log_marginal_likelihood(torch.tensor(best * f)) for f in (0.98, 1, 1.02)]
    assert evidence[1] > max(evidence[0], evidence[2])
    theirs.prior_precision = best
    precision = theirs.posterior_precision
    matrix = {"kron": lambda p: p.to_matrix(), "diag": torch.diag, "full": lambda p: p}[structure]
    root = ours.inverse_root(torch.eye(len(weights), dtype=torch.float64), best)
    torch.testing.assert_close(
        root.T @ root, torch.linalg.inv(matrix(precision)), rtol=1e-5, atol=1e-7
    )


# The predictive


@needs_library
def test_linearised_samples_are_the_first_order_expansion(rng):
    problem = problem_of(small_network, Categorical(3), rng)
    settings = {"subset": "all", "hessian": "full", "prior_precision": 2.0}
    curved = fit(Laplace(linearised=False, **settings), problem)
    linear = fit(Laplace(linearised=True, **settings), problem)
    network, inputs = linear.point.network, problem.train.inputs
    noise = torch.randn(12, 31, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    deviations = linear.curvature.inverse_root(noise, 2.0)
    mean = {name: p.detach() for name, p in network.named_parameters()}

    def at(weights: dict[str, torch.Tensor]) -> torch.Tensor:
        return functional_call(network, weights, (inputs,))

    jacobian = torch.cat([j.flatten(2) for j in jacrev(at)(mean).values()], dim=2)
    expected = at(mean) + torch.einsum("iap,sp->sia", jacobian, deviations)
    same = torch.Generator().manual_seed(8)
    torch.testing.assert_close(linear.sample(inputs, 12, rng=same), expected)

    vectors = nn.utils.parameters_to_vector(mean.values()) + deviations
    copy = small_network().double()
    for sample, vector in zip(
        curved.sample(inputs, 12, rng=torch.Generator().manual_seed(8)), vectors, strict=True
    ):
        nn.utils.vector_to_parameters(vector, copy.parameters())
        torch.testing.assert_close(sample, copy(inputs))


@needs_library
@pytest.mark.parametrize(
    ("subset", "expected"),
    [("last_layer", ["2.weight", "2.bias"]), ("all", ["0.weight", "2.weight", "2.bias"])],
)
def test_only_the_chosen_layers_are_random(subset, expected):
    def network() -> nn.Module:
        return nn.Sequential(nn.Linear(2, 4, bias=False), nn.BatchNorm1d(4), nn.Linear(4, 3))

    problem = replace(make_problem("classification"), network=network)
    assert fit(Laplace(subset=subset), problem).names == expected


@needs_library
def test_the_mean_is_the_network_trained_with_weight_decay():
    problem = make_problem("classification")
    inputs = problem.validation.inputs
    posterior = fit(Laplace(weight_decay=3.0, prior_precision=1e6), problem)
    alone = fit(MaximumLikelihood(weight_decay=3.0), problem)
    assert torch.equal(draw(posterior.point, inputs), draw(alone, inputs))
    torch.testing.assert_close(draw(posterior, inputs), draw(alone, inputs), rtol=0, atol=0.05)


@needs_library
def test_last_report_is_of_the_posterior():
    problem, listener = make_problem("classification", epochs=3), Listener()
    fit(Laplace(prior_precision=0.5), problem, listener=listener)
    assert [step for step, _ in listener.points] == [1, 2, 3, 4]
    _, last = listener.points[-1]
    assert last["prior_precision"] == 0.5
    assert last["nll"] != listener.points[-2][1]["nll"]
    empty = replace(problem, validation=Split(*(t[:0] for t in vars(problem.train).values())))
    fit(Laplace(prior_precision=0.5), empty, listener=listener)
    assert listener.points[-1] == (4, {"prior_precision": 0.5})


# What it refuses


def test_without_the_library_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "laplace", None)  # Python's own way to block an import
    problem = make_problem("classification")
    reason = Laplace().supports(problem)
    assert reason is not None
    assert reason.startswith("it needs the laplace-torch library: `make setup` installs it")
    assert "pip install 'bhnbench[laplace]'" in reason
    with pytest.raises(UnsupportedError, match="laplace-torch"):
        fit(Laplace(), problem)


def test_a_library_that_cannot_be_imported_is_told_with_its_reason(monkeypatch, tmp_path):
    lines = 'raise RuntimeError("operator torchvision::nms does not exist")'
    (tmp_path / "laplace.py").write_text(lines)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "laplace", raising=False)
    problem = make_problem("classification")
    reason = Laplace().supports(problem)
    assert reason is not None
    assert "RuntimeError: operator torchvision::nms does not exist" in reason
    assert "\n" not in reason


@needs_library
@pytest.mark.parametrize(
    ("settings", "network", "expected"),
    [
        (
            {},
            lambda: nn.Sequential(nn.PReLU(2), nn.ConstantPad1d((0, 1), 0.0)),
            "it needs a Linear or Conv layer to train, but the network has none",
        ),
        (
            {"subset": "all"},
            lambda: nn.Sequential(
                nn.Unflatten(1, (1, 2)), nn.Conv1d(1, 2, 1), nn.Flatten(), nn.Linear(4, 3)
            ),
            "hessian kron needs layers to be Linear or Conv2d, but got Conv1d; use hessian diag",
        ),
        (
            {"hessian": "full"},
            lambda: nn.Sequential(nn.Linear(2, 2000), nn.Linear(2000, 3)),
            "hessian full needs at most 6000 random weights, but subset last_layer has 6003; "
            "use hessian kron",
        ),
    ],
)
def test_unfit_networks_are_refused(settings, network, expected):
    problem = replace(make_problem("classification"), network=network)
    assert Laplace(**settings).supports(problem) == expected


def test_other_likelihoods_are_refused():
    problem = replace(make_problem("classification"), likelihood=SoftCategorical(3))
    expected = "it needs a Categorical or Gaussian likelihood, but the problem has SoftCategorical"
    assert Laplace().supports(problem) == expected


@needs_library
def test_warm_start_must_be_a_laplace_posterior():
    problem = make_problem("classification")
    other = fit(Laplace(), problem).curvature
    with pytest.raises(ContractError, match="what an earlier fit of"):
        Laplace().fit(problem, rng=fit_rng(1), report=Listener(), warm_start=other)


@needs_library
@pytest.mark.parametrize("n_samples", [2, 1000])
def test_chunks_have_as_many_inputs_as_memory_allows(monkeypatch, n_samples):
    """What is computed once a chunk counts in full for the samples that share it."""

    def network() -> nn.Module:
        return nn.Sequential(nn.Linear(2, 200), nn.Tanh(), nn.Linear(200, 3))

    posterior = fit(Laplace(), replace(make_problem("classification"), network=network))
    monkeypatch.setattr(predictive, "MAX_ACTIVATIONS", 10_000)
    n_rows = []
    posterior.point.network[0].register_forward_hook(lambda *args: n_rows.append(len(args[2])))
    posterior.sample(torch.zeros(400, 2), n_samples, rng=torch.Generator().manual_seed(0))
    assert 1 < max(n_rows) <= 10_000 / posterior.point.n_activations
