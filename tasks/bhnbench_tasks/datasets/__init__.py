"""Data sets of images, read once in a process. Their tensors are shared: never modify them."""

from __future__ import annotations

from functools import cache

from bhnbench.space import Choice
from bhnbench_tasks.datasets import digits, mnist
from bhnbench_tasks.datasets.dataset import Dataset

__all__ = ["NAMES", "Dataset", "data_digest", "load_dataset", "n_train_rows", "prepare_dataset"]

_SOURCES = {"digits": digits.SOURCE, "mnist": mnist.SOURCE}
NAMES = Choice(*_SOURCES)


@cache
def load_dataset(name: str) -> Dataset:
    """The data set of that name.

    Raises:
        DataError: its files are missing, or are not what they should be.
    """
    return _SOURCES[name].load()


def prepare_dataset(name: str) -> None:
    """Fetch and check every file of the data set.

    Raises:
        DataError: a file cannot be had, or is not what it should be.
    """
    _SOURCES[name].prepare()


def data_digest(name: str) -> str:
    """Digest of the data set's content; reads nothing."""
    return _SOURCES[name].digest


def n_train_rows(name: str) -> int:
    """Size of the training split; reads nothing."""
    return _SOURCES[name].n_train
