"""Images made larger or smaller by averaging areas."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def resize(images: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """``(..., height, width)`` to ``(..., *shape)``.

    A pixel becomes the mean, by area, of what lies under it: so the mean of an image stays as it
    is, and so do the bounds of its values. (Adaptive pooling gives pixels that straddle a border
    their full weight on both sides.)
    """
    height, width = (
        _overlaps(old, new) for old, new in zip(images.shape[-2:], shape, strict=True)
    )
    return (height @ images.double() @ width.T).to(images.dtype)  # float32 would leave the bounds


def _overlaps(n_old: int, n_new: int) -> torch.Tensor:
    """``(n_new, n_old)``: the share of each old pixel in each new one; rows sum to 1."""
    import torch

    old = torch.arange(n_old + 1, dtype=torch.float64) / n_old
    new = torch.arange(n_new + 1, dtype=torch.float64) / n_new
    low = torch.maximum(old[:-1], new[:-1, None])
    high = torch.minimum(old[1:], new[1:, None])
    return (high - low).clamp(min=0) * n_new
