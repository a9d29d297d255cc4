"""Data sets of images, read once in a process. Their tensors are shared: never modify them.

Nothing here imports torch before it reads, so that a listing of data sets is quick.
"""

from __future__ import annotations

from bhnbench_tasks.datasets import (
    arrays,
    cifar10,
    digits,
    fashion_mnist,
    kmnist,
    mnist,
    notmnist,
    omniglot,
)
from bhnbench_tasks.datasets.catalogue import Catalogue
from bhnbench_tasks.datasets.dataset import Dataset, ImageSource

__all__ = [
    "NAMES",
    "Dataset",
    "data_digest",
    "image_shape",
    "load_dataset",
    "n_channels",
    "n_classes",
    "n_train_rows",
    "prepare_dataset",
    "value_range",
]

_SOURCES: dict[str, ImageSource] = {
    "digits": digits.SOURCE,
    "mnist": mnist.SOURCE,
    "fashion_mnist": fashion_mnist.SOURCE,
    "kmnist": kmnist.SOURCE,
    "notmnist": notmnist.SOURCE,
    "omniglot": omniglot.SOURCE,
    "cifar10": cifar10.SOURCE,
}
_IMAGES: Catalogue[Dataset] = Catalogue(_SOURCES, arrays.load_dataset)
NAMES = _IMAGES.names
load_dataset = _IMAGES.load
prepare_dataset = _IMAGES.prepare
data_digest = _IMAGES.digest


def n_train_rows(name: str) -> int:
    """Size of the training split; of a known data set it reads nothing."""
    return _SOURCES[name].n_train if name in _SOURCES else len(load_dataset(name).train)


def image_shape(name: str) -> tuple[int, int]:
    """Height and width of its images; of a known data set it reads nothing."""
    return _SOURCES[name].image_shape if name in _SOURCES else load_dataset(name).image_shape


def n_channels(name: str) -> int:
    """Channels of its images, 1 where they are grey; of a known data set it reads nothing."""
    return _SOURCES[name].n_channels if name in _SOURCES else load_dataset(name).n_channels


def n_classes(name: str) -> int:
    """Classes of its images; of a known data set it reads nothing."""
    return _SOURCES[name].n_classes if name in _SOURCES else load_dataset(name).n_classes


def value_range(name: str) -> tuple[float, float]:
    """The lowest and the highest input that it may have; of a known data set it reads nothing."""
    return (0.0, 1.0) if name in _SOURCES else load_dataset(name).value_range
