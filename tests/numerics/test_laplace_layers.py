"""Laplace's curvature of convolutions and hidden layers, against Jacobians written out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev, vmap

from bhnbench.contract import Likelihood, Problem, Split
from bhnbench.likelihoods import MIN_SCALE, Categorical, Gaussian
from bhnbench.testing.fitting import draw, fit
from bhnbench_methods.curvature import Curvature, curvature_of
from bhnbench_methods.laplace import Laplace

pytestmark = pytest.mark.skipif(
    find_spec("laplace") is None, reason="laplace-torch is not installed; `make setup` does it"
)
F64 = torch.float64
by_likelihood = pytest.mark.parametrize(
    "likelihood", [Categorical(3), Gaussian()], ids=["classes", "values"]
)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def mlp(n_outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3, bias=False), nn.Tanh(), nn.Linear(3, n_outputs)
    )


def convnet(kernel: int, n_outputs: int) -> nn.Module:
    """On images of 2 x 3 x 3."""
    n_positions = (4 - kernel) ** 2
    last = nn.Linear(2 * n_positions, n_outputs)
    return nn.Sequential(nn.Conv2d(2, 2, kernel), nn.Tanh(), nn.Flatten(), last)


def problem_of(
    network: Callable[[int], nn.Module], inputs: torch.Tensor, likelihood: Likelihood
) -> Problem:
    """One of three classes, or one real value with its scale, for each example."""
    classes = isinstance(likelihood, Categorical)
    values = normal(len(inputs), 1, seed=1)
    targets = (values[:, 0] > 0).long() if classes else values
    split = Split(inputs, targets)
    return Problem(split, split, likelihood, partial(network, 3 if classes else 2), 2, 8)


def trained(problem: Problem) -> nn.Module:
    """Stands for it: weights of some size."""
    torch.manual_seed(3)
    return problem.network().double()


def information(likelihood: Likelihood, outputs: torch.Tensor) -> torch.Tensor:
    """Fisher information in the outputs of one example; that of a Gaussian is diagonal."""
    if isinstance(likelihood, Categorical):
        probs = outputs.softmax(0)
        return torch.diag(probs) - torch.outer(probs, probs)
    raw_scale = outputs[1]
    sd = nn.functional.softplus(raw_scale) + MIN_SCALE
    return torch.stack([1 / sd, math.sqrt(2) * raw_scale.sigmoid() / sd]).square().diag()


def gauss_newton_blocks(network: nn.Module, problem: Problem) -> list[torch.Tensor]:
    """``sum_i J_i^T F_i J_i`` for each parameter tensor on its own."""
    params = {name: p.detach() for name, p in network.named_parameters()}

    def outputs(params: dict[str, torch.Tensor], row: torch.Tensor) -> torch.Tensor:
        return functional_call(network, params, (row.unsqueeze(0),)).squeeze(0)

    rows = problem.train.inputs
    fisher = vmap(partial(information, problem.likelihood))(network(rows).detach())
    jacobians = vmap(jacrev(outputs), (None, 0))(params, rows).values()
    return [
        torch.einsum("iap,iab,ibq->pq", jacobian.flatten(2), fisher, jacobian.flatten(2))
        for jacobian in jacobians
    ]


def dense(curvature: Curvature) -> torch.Tensor:
    """The matrix itself."""
    identity = torch.eye(sum(curvature.sizes), dtype=F64)
    root = curvature.inverse_root(identity, 1.0)
    return torch.linalg.inv(root.T @ root) - identity


@by_likelihood
@pytest.mark.parametrize(
    ("network", "shape"),
    [(mlp, (3,)), (partial(convnet, 3), (2, 3, 3))],
    ids=["hidden layers", "convolution"],
)
def test_kron_is_exact_for_copies_of_one_example(
    network: Callable[[int], nn.Module], shape: tuple[int, ...], likelihood: Likelihood
) -> None:
    """In two batches: every example then has the same factors, and the convolution one position.

    So a layer's own block of the Gauss-Newton matrix is a Kronecker product.
    """
    problem = problem_of(network, normal(1, *shape).repeat_interleave(140, 0), likelihood)
    expected = torch.block_diag(*gauss_newton_blocks(trained(problem), problem))
    actual = dense(curvature_of(trained(problem), problem, "kron"))
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("structure", ["diag", "full"])
@by_likelihood
def test_curvature_of_a_convolution_is_the_gauss_newton_matrix(
    likelihood: Likelihood, structure: str
) -> None:
    problem = problem_of(partial(convnet, 2), normal(140, 2, 3, 3), likelihood)
    network = trained(problem)
    actual = dense(curvature_of(network, problem, structure))
    blocks = torch.block_diag(*gauss_newton_blocks(network, problem))
    on_blocks = torch.block_diag(*(torch.ones(p.numel(), p.numel()) for p in network.parameters()))
    if structure == "diag":
        torch.testing.assert_close(actual, blocks.diagonal().diag())
    else:
        torch.testing.assert_close(actual * on_blocks, blocks)
        assert (actual * (1 - on_blocks)).abs().max() > 1e-2


def factors(network: nn.Sequential, problem: Problem) -> Iterator[torch.Tensor]:
    """The mean of ``a a^T`` over examples and positions times the sum of ``D^T F D``.

    ``a`` are the inputs of a unit (Grosse and Martens, 2016) and D are the derivatives of the
    outputs in the layer's own. A bias has the factor 1 for ``a a^T``.
    """
    fisher = vmap(partial(information, problem.likelihood))(network(problem.train.inputs))
    hidden = problem.train.inputs
    for i, layer in enumerate(network):
        if isinstance(layer, nn.Linear | nn.Conv2d):
            rest, own = network[i + 1 :], layer(hidden)
            derivative = vmap(jacrev(lambda row, rest=rest: rest(row.unsqueeze(0))[0]))(own)
            seen = hidden.unsqueeze(1)  # (n, positions, inputs of a unit)
            if isinstance(layer, nn.Conv2d):
                seen = nn.functional.unfold(hidden, layer.kernel_size).mT
            derivative = derivative.flatten(3) if own.ndim > 2 else derivative.unsqueeze(3)
            left = torch.einsum("iaos,iab,ibps->op", derivative, fisher, derivative)
            right = torch.einsum("isp,isq->pq", seen, seen) / seen.shape[:2].numel()
            yield torch.kron(left.contiguous(), right.contiguous())
            if layer.bias is not None:
                yield left
        hidden = layer(hidden)


@by_likelihood
@pytest.mark.parametrize(
    ("network", "shape"),
    [(mlp, (3,)), (partial(convnet, 2), (2, 3, 3))],
    ids=["hidden layers", "convolution"],
)
def test_kron_of_every_layer_is_the_product_of_its_factors(
    network: Callable[[int], nn.Module], shape: tuple[int, ...], likelihood: Likelihood
) -> None:
    problem = problem_of(network, normal(140, *shape), likelihood)
    made = trained(problem)
    assert isinstance(made, nn.Sequential)
    with torch.no_grad():
        expected = torch.block_diag(*factors(made, problem))
    torch.testing.assert_close(dense(curvature_of(made, problem, "kron")), expected)


@pytest.mark.parametrize("hessian", ["kron", "full"])
def test_linearised_outputs_of_a_convolution_have_the_variance_of_the_gaussian(
    hessian: str,
) -> None:
    """``J (H + precision)^-1 J^T``, with the Jacobians of a network that was trained."""
    problem = problem_of(partial(convnet, 3), normal(20, 2, 3, 3), Categorical(3))
    method = Laplace(subset="all", hessian=hessian, prior_precision=2.0)
    posterior = fit(method, problem)
    network, inputs, n = posterior.point.network, problem.train.inputs[:4], 20_000
    params = {name: p.detach() for name, p in network.named_parameters()}
    jacobian = jacrev(lambda params: functional_call(network, params, (inputs,)))(params)
    by_weight = torch.cat([jacobian[name].flatten(2) for name in posterior.names], dim=2)
    precision = dense(posterior.curvature) + 2.0 * torch.eye(by_weight.shape[2], dtype=F64)
    covariance = torch.linalg.inv(precision)
    variance = torch.einsum("iap,pq,iaq->ia", by_weight, covariance, by_weight)
    outputs = draw(posterior, inputs, n_samples=n)
    error = variance * math.sqrt(2 / n)  # of the variance of a Gaussian
    assert ((outputs.var(0) - variance).abs() < 4.5 * error).all()
