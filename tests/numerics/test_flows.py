"""Flows against autograd's Jacobian, zuko, and a closed-form KL; all in float64."""

from __future__ import annotations

import math

import pytest
import torch
import zuko
from torch import nn
from torch.func import jacrev

from bhnbench.contract import Problem, Split
from bhnbench.likelihoods import Categorical
from bhnbench_methods.bayesian_hypernet import BayesianHypernet, _HypernetModel
from bhnbench_methods.flows import (
    FLOWS,
    AffineCoupling,
    Autoregressive,
    Coupling,
    Flow,
    GainedLinear,
    SplineCoupling,
    make_flow,
)

N_DIMS = 7
TINY = 1e-300  # slope of zuko's soft bound on log-scales, so small that the bound can be undone


def random_flow(kind: str, n_layers: int = 3, n_dims: int = N_DIMS) -> Flow:
    """A flow far from the identity."""
    torch.manual_seed(0)
    flow = make_flow(kind, n_dims, n_layers, width=11, initial_sd=0.5).double()
    for parameter in flow.parameters():
        nn.init.normal_(parameter, std=0.5)
    return flow.requires_grad_(False)


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", FLOWS)
@pytest.mark.parametrize("n_layers", [0, 1, 4])
@pytest.mark.parametrize("n_dims", [2, 7])
def test_log_det_is_that_of_the_jacobian(kind: str, n_layers: int, n_dims: int) -> None:
    flow = random_flow(kind, n_layers, n_dims)
    for eps in noise(5, n_dims):
        expected = torch.linalg.slogdet(jacrev(lambda e: flow(e)[0])(eps)).logabsdet
        torch.testing.assert_close(flow(eps)[1], expected)


@pytest.mark.parametrize("kind", FLOWS)
def test_a_batch_equals_one_at_a_time(kind: str) -> None:
    flow = random_flow(kind)
    eps = noise(4, N_DIMS)
    values, log_dets = flow(eps)
    for i in range(len(eps)):
        one, log_det = flow(eps[i])
        torch.testing.assert_close(one, values[i])
        torch.testing.assert_close(log_det, log_dets[i])


@pytest.mark.parametrize("kind", FLOWS)
def test_starts_near_the_scaled_identity(kind: str) -> None:
    """Up to the order: coupling layers swap the halves."""
    torch.manual_seed(0)
    eps = noise(N_DIMS)
    values, log_det = make_flow(kind, N_DIMS, 8, width=200, initial_sd=0.25).double()(eps)
    expected = 0.25 * eps.sort().values
    torch.testing.assert_close(values.sort().values, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(log_det.item(), N_DIMS * math.log(0.25), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["realnvp", "spline"])
@pytest.mark.parametrize("n_dims", [2, 3, 7])
def test_every_output_depends_on_every_input(kind: str, n_dims: int) -> None:
    """After three blocks with an even number of dimensions, four with an odd one."""
    n_layers = 3 + n_dims % 2
    flow = random_flow(kind, n_layers, n_dims)
    influences = sum(jacrev(lambda e: flow(e)[0])(eps) != 0 for eps in noise(5, n_dims))
    assert influences.all()


def test_autoregressive_blocks_are_autoregressive() -> None:
    (block,) = random_flow("iaf", 1).blocks
    jacobian = jacrev(lambda x: block(x)[0])(noise(N_DIMS))
    influences = jacobian != 0
    order = influences.sum(1).argsort()  # few influences first
    assert not influences[order][:, order].triu(1).any()
    assert influences.sum() > N_DIMS  # more than the diagonal


def zuko_affine(raw_scale: torch.Tensor, shift: torch.Tensor) -> zuko.transforms.Transform:
    return zuko_scale(raw_scale.tanh(), shift)


def zuko_scale(log_scale: torch.Tensor, shift: torch.Tensor) -> zuko.transforms.Transform:
    unbounded = log_scale / (1 + log_scale.abs() / math.log(TINY))  # undoes zuko's soft bound
    affine = zuko.transforms.MonotonicAffineTransform(shift, unbounded, slope=TINY)
    return zuko.transforms.DependentTransform(affine, 1)


def zuko_transforms(flow: Flow) -> list[zuko.transforms.Transform]:
    """The same maps built from zuko's parts."""
    maps = []
    for block in flow.blocks:
        if isinstance(block, Coupling):
            maps += zuko_coupling(block)
        if isinstance(block, Autoregressive):
            maps.append(zuko_autoregressive(block))
    scale = flow.affine.raw_scale.exp() + 1e-3
    return [*maps, zuko_scale(scale.log(), flow.affine.shift)]


def dense(layer: GainedLinear, x: torch.Tensor) -> torch.Tensor:
    mask = 1.0 if layer.mask is None else layer.mask
    return x @ (layer.gain[:, None] * layer.weight * mask).mT + layer.bias


def zuko_coupling(block: Coupling) -> list[zuko.transforms.Transform]:
    n_kept, n_mapped = block.sizes

    def meta(kept: torch.Tensor) -> zuko.transforms.Transform:
        heads = dense(block.heads, dense(block.hidden, kept).relu())
        if isinstance(block, AffineCoupling):
            return zuko_affine(*heads.chunk(2, dim=-1))
        assert isinstance(block, SplineCoupling)
        affine, spline = heads[..., : 2 * n_mapped], heads[..., 2 * n_mapped :]
        spline = spline.reshape(*spline.shape[:-1], n_mapped, 11)
        bend = zuko.transforms.MonotonicRQSTransform(
            spline[..., :4], spline[..., 4:8], spline[..., 8:], bound=5.0
        )
        bend = zuko.transforms.DependentTransform(bend, 1)
        return zuko.transforms.ComposedTransform(bend, zuko_affine(*affine.chunk(2, dim=-1)))

    kept = torch.arange(n_kept + n_mapped) < n_kept
    swap = torch.arange(n_kept + n_mapped).roll(n_mapped)
    return [
        zuko.transforms.CouplingTransform(meta, kept),
        zuko.transforms.PermutationTransform(swap),
    ]


def zuko_autoregressive(block: Autoregressive) -> zuko.transforms.Transform:
    def meta(x: torch.Tensor) -> zuko.transforms.Transform:
        heads = dense(block.heads, dense(block.hidden, x).relu())
        return zuko_affine(*heads.chunk(2, dim=-1))

    return zuko.transforms.AutoregressiveTransform(meta, passes=block.hidden.weight.shape[1])


@pytest.mark.parametrize("kind", FLOWS)
def test_density_is_that_of_zuko(kind: str) -> None:
    """zuko inverts the map to find the density: so the noise is recovered, too."""
    flow = random_flow(kind)
    transform = zuko.transforms.ComposedTransform(*zuko_transforms(flow))
    mean = torch.zeros(N_DIMS, dtype=torch.float64)
    base = zuko.distributions.DiagNormal(mean, torch.ones_like(mean))
    eps = noise(6, N_DIMS)
    values, log_det = flow(eps)
    torch.testing.assert_close(values, transform(eps))
    log_q = zuko.distributions.NormalizingFlow(transform.inv, base).log_prob(values)
    torch.testing.assert_close(base.log_prob(eps) - log_det, log_q)


def hypernet(method: BayesianHypernet) -> _HypernetModel:
    split = Split(torch.zeros(4, 3, dtype=torch.float64), torch.zeros(4, dtype=torch.int64))

    def network() -> nn.Module:
        return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))

    return _HypernetModel(Problem(split, split, Categorical(2), network, 1, 4), method)


@pytest.mark.parametrize("prior_mean", ["initial", "zero"])
def test_kl_of_affine_flow_is_that_of_gaussians(prior_mean: str) -> None:
    """KL(N(m, s^2) || N(0, 1/p)) = sum 1/2 (p (s^2 + m^2) - 1 - log(p s^2)), m from the mean."""
    precision = 2.5
    method = BayesianHypernet(
        flow="affine", prior_precision=precision, initial_sd=0.3, prior_mean=prior_mean
    )
    model = hypernet(method)
    nn.init.normal_(model.flow.affine.shift)
    nn.init.normal_(model.flow.affine.raw_scale)
    mean = model.flow.affine.shift + (model.target.start if prior_mean == "zero" else 0)
    variance = (model.flow.affine.raw_scale.exp() + 1e-3).square()
    terms = precision * (variance + mean.square()) - 1 - (precision * variance).log()
    exact = 0.5 * terms.sum().item()
    n_samples = 20_000
    with torch.no_grad():
        _, kl = model.values_and_kl(noise(n_samples, model.target.n_dims))
    standard_error = kl.std().item() / math.sqrt(n_samples)
    assert abs(kl.mean().item() - exact) < 4 * standard_error


def test_kl_to_itself_is_zero() -> None:
    """With posterior = prior the estimate is zero for every draw: no constant is missing."""
    model = hypernet(BayesianHypernet(flow="affine", prior_precision=4.0, initial_sd=0.5))
    model.target.start.zero_()
    _, kl = model.values_and_kl(noise(10, model.target.n_dims))
    torch.testing.assert_close(kl, torch.zeros_like(kl), atol=1e-6, rtol=0)
