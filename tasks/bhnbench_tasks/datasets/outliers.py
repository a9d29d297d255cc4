"""Images that are none of the classes a network has learnt: other data sets, and noise.

Of the images of a set, shuffled once and for ever, the first half is for validation and the
second for test. So they share no row; notMNIST has some pictures twice, and 99 of its 5000 test
images are equal to a validation image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from bhnbench.contract import DataFile, Holdout
from bhnbench.progress_bar import show
from bhnbench.space import Choice
from bhnbench_tasks.datasets import cifar10, fashion_mnist, kmnist, mnist, notmnist, omniglot
from bhnbench_tasks.datasets.order import shuffled
from bhnbench_tasks.datasets.resize import resize
from bhnbench_tasks.datasets.source import Source, digest_of

if TYPE_CHECKING:
    import torch

N_NOISE = 5000  # as many as there are images in half of most sets


@dataclass(frozen=True)
class _Images:
    """What of a data set serves as outliers: its test images, or all if it has no test file."""

    source: Source[Any]
    files: tuple[DataFile, ...]
    read: Callable[[], torch.Tensor]  # (n, height, width) in [0, 1]


_IMAGES = {
    "notmnist": _Images(notmnist.SOURCE, (notmnist.TEST.images,), notmnist.TEST.read_images),
    "omniglot": _Images(omniglot.SOURCE, (omniglot.FILE,), lambda: omniglot.read_images()[0]),
    "cifar10": _Images(cifar10.SOURCE, (cifar10.FILE,), cifar10.read_grey),
    "fashion_mnist": _Images(
        fashion_mnist.SOURCE, (fashion_mnist.TEST.images,), fashion_mnist.TEST.read_images
    ),
    "kmnist": _Images(kmnist.SOURCE, (kmnist.TEST.images,), kmnist.TEST.read_images),
    "mnist": _Images(mnist.SOURCE, (mnist.TEST.images,), mnist.TEST.read_images),
}
NOISE = ("uniform", "gaussian")
OUTLIERS = Choice(*_IMAGES, *NOISE)
KINDS = {  # of images; a set may hold some of several
    "digits": {"handwritten digits"},
    "mnist": {"handwritten digits"},
    "notmnist": {"Latin letters"},
    "omniglot": {"Latin letters", "hiragana"},
    "kmnist": {"hiragana"},
    "fashion_mnist": {"clothes"},
    "cifar10": {"photographs"},
    "uniform": {"uniform noise"},
    "gaussian": {"Gaussian noise"},
}


def common_kinds(one: str, other: str) -> str:
    """The kinds of images that two sets both hold, in words; of a user's file none is known."""
    return " and ".join(sorted(KINDS.get(one, set()) & KINDS.get(other, set())))


def load_outliers(
    name: str, holdout: Holdout, image_shape: tuple[int, int], rng: torch.Generator
) -> torch.Tensor:
    """Outliers ``(n, height * width)`` float32; do not modify them: they are shared.

    Args:
        name: one of ``OUTLIERS``.
        holdout: which half of the images; noise is drawn anew for either.
        image_shape: height and width, to which images are brought by averaging areas.
        rng: draws the noise, and nothing else.

    Returns:
        Images in [0, 1]; uniform noise on [0, 1]; standard normal noise, which is not clipped.

    Raises:
        DataError: files are missing, or are not what they should be.
    """
    import torch

    n_pixels = image_shape[0] * image_shape[1]
    if name == "uniform":
        return torch.rand(N_NOISE, n_pixels, generator=rng)
    if name == "gaussian":
        return torch.randn(N_NOISE, n_pixels, generator=rng)
    images = _load(name, image_shape)
    half = len(images) // 2
    return images[:half] if holdout == "validation" else images[half:]


@cache
def _load(name: str, image_shape: tuple[int, int]) -> torch.Tensor:
    """All images of a set in their fixed random order, flattened."""
    images = _IMAGES[name].read()
    if images.shape[1:] != image_shape:
        images = resize(images, image_shape)
    return images[shuffled(len(images))].flatten(1)


def prepare_outliers(name: str) -> None:
    """Fetch and check the files that are needed; noise needs none.

    Raises:
        DataError: a file cannot be had, or is not what it should be.
    """
    if name not in NOISE:
        images = _IMAGES[name]
        images.source.prepare_files(images.files, show)


def outliers_digest(name: str) -> str:
    """Digest of the images' files; reads nothing, and of noise there is none."""
    return "" if name in NOISE else digest_of(_IMAGES[name].files)
