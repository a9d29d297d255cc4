"""Corruptions of images, a whole batch at a time; what is outside of an image is black.

Images are ``(n, channels, height, width)`` with pixels in [0, 1]. A corruption leaves them so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch.nn import functional as F

from bhnbench_tasks.datasets import image_shape, value_range

SEVERITIES = (1, 2, 3, 4, 5)
_ROUNDING = 1e-6  # of pixels that were scaled to [0, 1]
Corruption = Callable[[torch.Tensor, int, torch.Generator], torch.Tensor]
"""``corruption(images, severity, rng)``; with equal ``rng`` severities differ in nothing else."""


def as_images(inputs: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """``(n, channels * height * width)`` as ``(n, channels, height, width)``."""
    return inputs.reshape(len(inputs), -1, *shape)


def not_images(dataset: str) -> list[str]:
    """What is wrong with a data set whose examples are vectors, in a sentence."""
    height, width = image_shape(dataset)
    if min(height, width) > 1:
        return []
    return [f"dataset must hold images, but {dataset} has {height}x{width} features"]


def not_pixels(dataset: str) -> list[str]:
    """What is wrong with a data set whose inputs leave [0, 1], in a sentence."""
    low, high = value_range(dataset)
    if low >= -_ROUNDING and high <= 1 + _ROUNDING:
        return []
    return [
        f"dataset must hold pixels in [0, 1], but those of {dataset} are in [{low:g}, {high:g}]; "
        "scale them, or save uint8, which is divided by 255"
    ]


def rotate(images: torch.Tensor, degrees: torch.Tensor | float) -> torch.Tensor:
    """Turn counter-clockwise about the centre, bilinearly; ``degrees`` may be ``(n,)``."""
    angle = torch.as_tensor(degrees, dtype=images.dtype).expand(len(images)).deg2rad()
    cos, sin = angle.cos(), angle.sin()
    return _resample(images, cos, -sin, sin, cos)


def shear(images: torch.Tensor, slopes: torch.Tensor) -> torch.Tensor:
    """Lean to the right by ``slopes (n,)`` pixels a row, about the centre, bilinearly."""
    one, zero = torch.ones_like(slopes), torch.zeros_like(slopes)
    return _resample(images, one, slopes, zero, one)


def translate(images: torch.Tensor, right: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    """Shift by pixels ``(n,)`` each, bilinearly."""
    one, zero = torch.ones_like(right), torch.zeros_like(right)
    return _resample(images, one, zero, zero, one, -right, -down)


def _resample(
    images: torch.Tensor,
    xx: torch.Tensor,
    xy: torch.Tensor,
    yx: torch.Tensor,
    yy: torch.Tensor,
    x: torch.Tensor | float = 0.0,
    y: torch.Tensor | float = 0.0,
) -> torch.Tensor:
    """Pixel (u, v) from the centre becomes that at (xx u + xy v + x, yx u + yy v + y)."""
    height, width = images.shape[-2:]
    x, y = (torch.as_tensor(shift).expand_as(xx) for shift in (x, y))
    # affine_grid measures in half widths and half heights.
    rows = (
        torch.stack([xx, xy * height / width, x * 2 / width], dim=-1),
        torch.stack([yx * width / height, yy, y * 2 / height], dim=-1),
    )
    theta = torch.stack(rows, dim=1).to(images)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def blur(images: torch.Tensor, sd: float) -> torch.Tensor:
    """Gaussian blur of ``sd`` pixels, cut off at 4 sd."""
    height, width = images.shape[-2:]
    # A product with two band matrices: many times faster than a convolution of one channel.
    return _smoothing(height, sd).to(images) @ images @ _smoothing(width, sd).to(images)


def _smoothing(n: int, sd: float) -> torch.Tensor:
    """Weights ``(n, n)`` of pixels in the blur of a pixel; symmetric."""
    radius = int(4 * sd + 0.5)
    offsets = torch.arange(-radius, radius + 1).double()
    total = torch.exp(-0.5 * (offsets / sd).square()).sum()
    distances = (torch.arange(n).unsqueeze(-1) - torch.arange(n)).double()
    weights = torch.exp(-0.5 * (distances / sd).square()) / total
    return weights.masked_fill(distances.abs() > radius, 0.0)


def occlude(
    images: torch.Tensor, side: int, top: torch.Tensor, left: torch.Tensor
) -> torch.Tensor:
    """Blacken squares of ``side`` pixels whose first row and column are ``(n,)``."""
    height, width = images.shape[-2:]
    below = (torch.arange(height) - top.unsqueeze(-1)).to(images.device)
    beside = (torch.arange(width) - left.unsqueeze(-1)).to(images.device)
    rows, columns = ((place >= 0) & (place < side) for place in (below, beside))
    covered = rows.unsqueeze(-1) & columns.unsqueeze(-2)
    return images.masked_fill(covered.unsqueeze(1), 0.0)


def _blur(images: torch.Tensor, severity: int, rng: torch.Generator) -> torch.Tensor:
    """Gaussian, sd 2 % of the height a severity."""
    return blur(images, 0.02 * severity * images.shape[-2])


def _noise(images: torch.Tensor, severity: int, rng: torch.Generator) -> torch.Tensor:
    """Gaussian, sd 0.1 a severity."""
    noise = torch.randn(images.shape, generator=rng).to(images)
    return (images + 0.1 * severity * noise).clamp(0, 1)


def _occlusion(images: torch.Tensor, severity: int, rng: torch.Generator) -> torch.Tensor:
    """A black square somewhere, its side 10 % of the height a severity."""
    height, width = images.shape[-2:]
    side = min(max(round(0.1 * severity * height), 1), width)
    place = torch.rand(2, len(images), generator=rng)
    sizes = torch.tensor([[height - side + 1], [width - side + 1]])
    top, left = (place * sizes).long()
    return occlude(images, side, top, left)


def _translation(images: torch.Tensor, severity: int, rng: torch.Generator) -> torch.Tensor:
    """In any direction, by 5 % of the height a severity."""
    distance = 0.05 * severity * images.shape[-2]
    angle = 2 * math.pi * torch.rand(len(images), generator=rng)
    return translate(images, distance * angle.cos(), distance * angle.sin())


def _contrast(images: torch.Tensor, severity: int, rng: torch.Generator) -> torch.Tensor:
    """15 % less a severity, about an image's mean."""
    mean = images.mean(dim=(-3, -2, -1), keepdim=True)
    return mean + (1 - 0.15 * severity) * (images - mean)


def _rotation(images: torch.Tensor, severity: int, rng: torch.Generator) -> torch.Tensor:
    """To the left or to the right, by 9 degrees a severity."""
    return rotate(images, 9.0 * severity * _signs(len(images), rng))


def _salt_and_pepper(images: torch.Tensor, severity: int, rng: torch.Generator) -> torch.Tensor:
    """5 % of the pixels a severity become black or white."""
    chance = torch.rand(images.shape, generator=rng).to(images)
    white = torch.rand(images.shape, generator=rng).to(images).round()
    return torch.where(chance < 0.05 * severity, white, images)


def _shear(images: torch.Tensor, severity: int, rng: torch.Generator) -> torch.Tensor:
    """To the left or to the right, by 0.15 pixels a row and severity."""
    return shear(images, 0.15 * severity * _signs(len(images), rng))


def _signs(n: int, rng: torch.Generator) -> torch.Tensor:
    return 2.0 * torch.randint(2, (n,), generator=rng) - 1


CORRUPTIONS: Mapping[str, Corruption] = {
    "blur": _blur,
    "noise": _noise,
    "occlusion": _occlusion,
    "translation": _translation,
    "contrast": _contrast,
    "rotation": _rotation,
    "salt_and_pepper": _salt_and_pepper,
    "shear": _shear,
}
