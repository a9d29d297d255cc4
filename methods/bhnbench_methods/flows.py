"""Invertible maps with tractable log-determinants, for ``theta = h(eps)`` with Gaussian ``eps``.

Only the direction from noise to parameters is needed, so only that one is written.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F
from zuko.transforms import MonotonicRQSTransform

MIN_SCALE = 1e-3  # of the authors' code; keeps log q finite
_INIT_SD = 1e-4  # of the authors' code: every block starts near the identity
_N_BINS = 4  # of a spline; the last matrix of a block grows with it
_BOUND = 5.0  # a spline is the identity outside; noise gets there once in two million draws

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


class GainedLinear(nn.Module):
    """``gain * (weight x) + bias``, with a gain for every output that starts near zero.

    With small weights instead, as in the authors' plain layer, Adam's first steps, of the
    learning rate in every weight, add up over hundreds of inputs and throw the outputs far. The
    gains hold them back. The authors' other layer, weight normalisation, divides by the rows'
    norms as well: that measured the same, at a third more memory traffic.
    """

    mask: torch.Tensor | None

    def __init__(self, n_inputs: int, n_outputs: int, mask: torch.Tensor | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_outputs, n_inputs) / math.sqrt(n_inputs))
        self.gain = nn.Parameter(_INIT_SD * torch.randn(n_outputs))
        self.bias = nn.Parameter(torch.zeros(n_outputs))
        self.register_buffer("mask", mask)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(..., n_inputs)`` to ``(..., n_outputs)``."""
        weight = self.weight if self.mask is None else self.weight * self.mask
        # mv is the faster way for a single x, but the slower one within vmap, where the weight
        # is a batch and no longer a Parameter.
        alone = x.ndim == 1 and isinstance(self.weight, nn.Parameter)
        product = torch.mv(weight, x) if alone else F.linear(x, weight)
        return torch.addcmul(self.bias, self.gain, product)


class Coupling(nn.Module, ABC):
    """Maps the second half of the dimensions, given the first, and swaps the halves.

    So the next block maps what this one keeps, and no permutation has to be gathered. One hidden
    layer gives the parameters of the map, ``n_heads`` for every dimension.
    """

    def __init__(self, n_dims: int, width: int, n_heads: int) -> None:
        super().__init__()
        self.sizes = (n_dims // 2, n_dims - n_dims // 2)
        self.hidden = GainedLinear(self.sizes[0], width)
        self.heads = GainedLinear(width, n_heads * self.sizes[1])

    def forward(self, x: torch.Tensor) -> Mapped:
        """Map the second half, given the first; then swap them."""
        kept, mapped = x.split_with_sizes(self.sizes, dim=-1)
        mapped, log_scale = self.transform(mapped, self.heads(self.hidden(kept).relu()))
        return torch.cat((mapped, kept), dim=-1), log_scale

    @abstractmethod
    def transform(self, x: torch.Tensor, heads: torch.Tensor) -> Mapped:
        """Map ``(..., n)``, each dimension on its own, by ``heads``, ``(..., n_heads * n)``."""


class AffineCoupling(Coupling):
    """RealNVP (Dinh et al., 2017, equations 7-8): ``y2 = x2 * exp(s(x1)) + m(x1)``, ``y1 = x1``.

    ``s`` goes through tanh: unbounded as in the BHN authors' code, several blocks together can
    make the gains explode at high learning rates.
    """

    def __init__(self, n_dims: int, width: int) -> None:
        super().__init__(n_dims, width, n_heads=2)

    def transform(self, x: torch.Tensor, heads: torch.Tensor) -> Mapped:
        """Scale and shift."""
        return _scale_and_shift(x, heads)


class SplineCoupling(Coupling):
    """Neural spline flow (Durkan et al., 2019), then scale and shift as in RealNVP.

    Each dimension of the second half goes through a monotonic rational-quadratic spline, the
    identity outside [-5, 5]. A spline alone cannot widen or move what it gets beyond its range.
    """

    def __init__(self, n_dims: int, width: int) -> None:
        super().__init__(n_dims, width, n_heads=2 + 3 * _N_BINS - 1)

    def transform(self, x: torch.Tensor, heads: torch.Tensor) -> Mapped:
        """Bend by a spline of these widths, heights and slopes; scale and shift."""
        affine, spline = heads.tensor_split((2 * x.shape[-1],), dim=-1)
        pieces = (_N_BINS, _N_BINS, _N_BINS - 1)
        shapes = spline.view(*x.shape, -1).split_with_sizes(pieces, dim=-1)
        bent, log_slope = MonotonicRQSTransform(*shapes, bound=_BOUND).call_and_ladj(x)
        mapped, log_scale = _scale_and_shift(bent, affine)
        return mapped, log_slope + log_scale


class Autoregressive(nn.Module):
    """Inverse autoregressive flow (Kingma et al., 2016): ``y_i = x_i exp(s_i(x_<i)) + m_i(x_<i)``.

    ``s``, through tanh, and ``m`` come from a MADE (Germain et al., 2015) of one hidden layer,
    with an order of the dimensions of its own. From noise to parameters it is one pass.
    """

    def __init__(self, n_dims: int, width: int) -> None:
        super().__init__()
        rank = torch.randperm(n_dims)
        hidden_rank = torch.randint(max(n_dims - 1, 1), (width,))  # sees dimensions up to it
        heads_mask = rank[:, None] > hidden_rank
        self.hidden = GainedLinear(n_dims, width, (hidden_rank[:, None] >= rank).float())
        self.heads = GainedLinear(width, 2 * n_dims, heads_mask.repeat(2, 1).float())

    def forward(self, x: torch.Tensor) -> Mapped:
        """Map every dimension, given those before it."""
        return _scale_and_shift(x, self.heads(self.hidden(x).relu()))


def _scale_and_shift(x: torch.Tensor, heads: torch.Tensor) -> Mapped:
    raw_scale, shift = heads.chunk(2, dim=-1)
    log_scale = raw_scale.tanh()
    return torch.addcmul(shift, x, log_scale.exp()), log_scale


_BLOCKS: dict[str, Callable[[int, int], nn.Module]] = {
    "realnvp": AffineCoupling,
    "iaf": Autoregressive,
    "spline": SplineCoupling,
}
FLOWS = ("affine", *_BLOCKS)


class Flow(nn.Module):
    """Blocks, one after the other, on the scale of the noise; then the affine map."""

    def __init__(self, blocks: list[nn.Module], affine: Affine) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.affine = affine

    def forward(self, eps: torch.Tensor) -> Mapped:
        """``h(eps)``, ``(..., d)``, and ``log |det dh/deps|``, ``(...)``."""
        x, log_scales = eps, []
        for block in (*self.blocks, self.affine):
            x, log_scale = block(x)
            log_scales.append(log_scale)
        return x, torch.cat(log_scales, dim=-1).sum(-1)


def make_flow(kind: str, n_dims: int, n_layers: int, width: int, initial_sd: float) -> Flow:
    """``n_layers`` blocks of ``kind``, one of ``FLOWS``, then the element-wise affine map."""
    n_blocks = 0 if kind == "affine" else n_layers
    return Flow(
        [_BLOCKS[kind](n_dims, width) for _ in range(n_blocks)], Affine(n_dims, initial_sd)
    )
