"""Data sets of images, read once in a process. Their tensors are shared: never modify them.

Nothing here imports torch before it reads, so that a listing of data sets is quick.
"""

from __future__ import annotations

from functools import cache

from bhnbench.progress_bar import show
from bhnbench.space import ChoiceOrFile
from bhnbench_tasks.datasets import (
    arrays,
    cifar10,
    digits,
    fashion_mnist,
    kmnist,
    mnist,
    notmnist,
    npz,
    omniglot,
)
from bhnbench_tasks.datasets.dataset import Dataset, ImageSource

__all__ = [
    "NAMES",
    "Dataset",
    "data_digest",
    "image_shape",
    "load_dataset",
    "n_channels",
    "n_train_rows",
    "prepare_dataset",
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
NAMES = ChoiceOrFile(*_SOURCES, suffix=npz.SUFFIX)


def load_dataset(name: str) -> Dataset:
    """The data set of that name, or in that file of the user's.

    Raises:
        DataError: its files are missing, or are not what they should be.
    """
    return _load(name) if name in _SOURCES else arrays.load_dataset(name)


@cache
def _load(name: str) -> Dataset:
    return _SOURCES[name].load()


def prepare_dataset(name: str) -> None:
    """Fetch and check every file of the data set.

    Raises:
        DataError: a file cannot be had, or is not what it should be.
    """
    if name in _SOURCES:
        _SOURCES[name].prepare(show)
    else:
        arrays.load_dataset(name)


def data_digest(name: str) -> str:
    """Digest of the data set's content; of a known data set it reads nothing."""
    return _SOURCES[name].digest if name in _SOURCES else npz.digest(name)


def n_train_rows(name: str) -> int:
    """Size of the training split; of a known data set it reads nothing."""
    return _SOURCES[name].n_train if name in _SOURCES else len(load_dataset(name).train)


def image_shape(name: str) -> tuple[int, int]:
    """Height and width of its images; of a known data set it reads nothing."""
    return _SOURCES[name].image_shape if name in _SOURCES else load_dataset(name).image_shape


def n_channels(name: str) -> int:
    """Channels of its images, 1 where they are grey; of a known data set it reads nothing."""
    return _SOURCES[name].n_channels if name in _SOURCES else load_dataset(name).n_channels
