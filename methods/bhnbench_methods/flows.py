"""Invertible maps with tractable log-determinants, for ``theta = h(eps)`` with Gaussian ``eps``.

Only the direction from noise to parameters is needed, so only that one is written.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

FLOWS = ("affine", "realnvp", "iaf")
MIN_SCALE = 1e-3  # of the authors' code; keeps log q finite
_INIT_SD = 1e-4  # of the authors' code: every block starts near the identity

Mapped = tuple[torch.Tensor, torch.Tensor]  # outputs (..., d); log-scales (..., k), whose sum
# over k is log |det dh/deps|: the Jacobian of every block is triangular up to an order


class Affine(nn.Module):
    """Element-wise ``(exp(w) + 0.001) * eps + shift``: a factorised Gaussian."""

    def __init__(self, n_dims: int, initial_sd: float) -> None:
        super().__init__()
        self.raw_scale = nn.Parameter(torch.full((n_dims,), math.log(initial_sd - MIN_SCALE)))
        self.shift = nn.Parameter(torch.zeros(n_dims))

    def forward(self, eps: torch.Tensor) -> Mapped:
        """Map the noise."""
        scale = self.raw_scale.exp() + MIN_SCALE
        return torch.addcmul(self.shift, scale, eps), scale.log().expand(eps.shape)


class Coupling(nn.Module):
    """RealNVP (Dinh et al., 2017, equations 7-8): ``y2 = x2 * exp(s(x1)) + m(x1)``, ``y1 = x1``.

    The two halves are taken after a fixed random reordering of the dimensions. ``s`` and ``m``
    share one hidden layer. ``s`` goes through tanh: unbounded as in the BHN authors' code,
    several blocks together can make the gains explode.
    """

    order: torch.Tensor

    def __init__(self, n_dims: int, width: int, reorder: bool) -> None:
        super().__init__()
        self.n_kept = n_dims // 2
        self.n_mapped = n_dims - self.n_kept
        self.reorder = reorder
        self.register_buffer("order", torch.randperm(n_dims) if reorder else torch.arange(n_dims))
        self.hidden = _small_linear(self.n_kept, width)
        self.heads = _small_linear(width, 2 * self.n_mapped)

    def forward(self, x: torch.Tensor) -> Mapped:
        """Map the second half, given the first."""
        if self.reorder:
            x = x.index_select(-1, self.order)
        kept, mapped = x.split_with_sizes((self.n_kept, self.n_mapped), dim=-1)
        hidden = _linear(kept, self.hidden.weight, self.hidden.bias).relu()
        raw_scale, shift = _linear(hidden, self.heads.weight, self.heads.bias).chunk(2, dim=-1)
        log_scale = raw_scale.tanh()
        mapped = torch.addcmul(shift, mapped, log_scale.exp())
        return torch.cat((kept, mapped), dim=-1), log_scale


class Autoregressive(nn.Module):
    """Inverse autoregressive flow (Kingma et al., 2016): ``y_i = x_i exp(s_i(x_<i)) + m_i(x_<i)``.

    ``s``, through tanh, and ``m`` come from a MADE (Germain et al., 2015) of one hidden layer,
    with an order of the dimensions of its own. From noise to parameters it is one pass.
    """

    hidden_mask: torch.Tensor
    heads_mask: torch.Tensor

    def __init__(self, n_dims: int, width: int) -> None:
        super().__init__()
        self.hidden = _small_linear(n_dims, width)
        self.heads = _small_linear(width, 2 * n_dims)
        rank = torch.randperm(n_dims)
        hidden_rank = torch.randint(max(n_dims - 1, 1), (width,))  # sees dimensions up to it
        heads_mask = rank[:, None] > hidden_rank
        self.register_buffer("hidden_mask", hidden_rank[:, None] >= rank)
        self.register_buffer("heads_mask", torch.cat((heads_mask, heads_mask)))

    def forward(self, x: torch.Tensor) -> Mapped:
        """Map every dimension, given those before it."""
        hidden = _linear(x, self.hidden.weight * self.hidden_mask, self.hidden.bias).relu()
        heads = _linear(hidden, self.heads.weight * self.heads_mask, self.heads.bias)
        raw_scale, shift = heads.chunk(2, dim=-1)
        log_scale = raw_scale.tanh()
        return torch.addcmul(shift, x, log_scale.exp()), log_scale


class Flow(nn.Module):
    """Maps one after the other."""

    def __init__(self, affine: Affine, *blocks: nn.Module) -> None:
        super().__init__()
        self.affine = affine
        self.blocks = nn.ModuleList(blocks)

    def forward(self, eps: torch.Tensor) -> Mapped:
        """``h(eps)``, ``(..., d)``, and ``log |det dh/deps|``, ``(...)``."""
        x, log_scale = self.affine(eps)
        log_scales = [log_scale]
        for block in self.blocks:
            x, log_scale = block(x)
            log_scales.append(log_scale)
        return x, torch.cat(log_scales, dim=-1).sum(-1)


def make_flow(kind: str, n_dims: int, n_layers: int, width: int, initial_sd: float) -> Flow:
    """The element-wise affine map, then ``n_layers`` blocks of ``kind``, one of ``FLOWS``."""
    blocks: list[nn.Module] = []
    if kind == "realnvp":
        blocks += [Coupling(n_dims, width, reorder=i > 0) for i in range(n_layers)]
    elif kind == "iaf":
        blocks += [Autoregressive(n_dims, width) for _ in range(n_layers)]
    return Flow(Affine(n_dims, initial_sd), *blocks)


def _small_linear(n_inputs: int, n_outputs: int) -> nn.Linear:
    linear = nn.Linear(n_inputs, n_outputs)
    nn.init.normal_(linear.weight, std=_INIT_SD)
    nn.init.zeros_(linear.bias)
    return linear


def _linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """``weight x + bias``.

    addmv is the faster way for a single ``x``, but the slower one within vmap, where the weight
    is a batch and no longer a Parameter.
    """
    if x.ndim == 1 and isinstance(weight, nn.Parameter):
        return torch.addmv(bias, weight, x)
    return F.linear(x, weight, bias)
