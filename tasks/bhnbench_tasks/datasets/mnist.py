"""MNIST: 28x28 handwritten digits, in the original order.

Source: Y. LeCun, C. Cortes, C. J. C. Burges. The training split is the first 50 000 rows of the
training file, validation its last 10 000, test the 10 000 rows of the test file: the split of
deeplearning.net's ``mnist.pkl.gz``, which the papers use.
"""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np
import torch

from bhnbench.contract import Split
from bhnbench_tasks.datasets.dataset import Dataset, Source
from bhnbench_tasks.datasets.files import GzipFile, read

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
FILES = {
    "train-images": GzipFile(
        "mnist/train-images-idx3-ubyte.gz",
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    "train-labels": GzipFile(
        "mnist/train-labels-idx1-ubyte.gz",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    "test-images": GzipFile(
        "mnist/t10k-images-idx3-ubyte.gz",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    "test-labels": GzipFile(
        "mnist/t10k-labels-idx1-ubyte.gz",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
}
N_TRAIN = 50_000
DIGEST = hashlib.sha256("".join(file.sha256 for file in FILES.values()).encode()).hexdigest()


def load() -> Dataset:
    """Read the training file; the test file is read when the test split is asked for."""
    rows = _read_split("train")
    return Dataset(
        "mnist",
        train=Split(rows.inputs[:N_TRAIN], rows.targets[:N_TRAIN]),
        validation=Split(rows.inputs[N_TRAIN:], rows.targets[N_TRAIN:]),
        n_classes=10,
        image_shape=(28, 28),
        read_test=_read_test,
    )


@cache
def _read_test() -> Split:
    return _read_split("test")


def _read_split(part: str) -> Split:
    images = read(FILES[f"{part}-images"], MIRRORS)  # IDX: a header of 16 bytes, then pixels
    labels = read(FILES[f"{part}-labels"], MIRRORS)  # IDX: a header of 8 bytes, then classes
    pixels = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28 * 28)
    classes = np.frombuffer(labels, np.uint8, offset=8).astype(np.int64)
    return Split(
        torch.from_numpy(np.divide(pixels, 255, dtype=np.float32)), torch.from_numpy(classes)
    )


def _prepare() -> None:
    for file in FILES.values():
        read(file, MIRRORS)


SOURCE = Source(DIGEST, N_TRAIN, load, prepare=_prepare)
