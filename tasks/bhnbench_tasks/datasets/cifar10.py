"""CIFAR-10: 32x32 colour photographs of ten kinds of things; as outliers, in grey.

Source: A. Krizhevsky, "Learning multiple layers of features from tiny images" (2009). The
training split is the first 45 000 rows of the training files, validation the last 5000, test the
10 000 rows of the test file. An image lies channel by channel: 3 x 32 x 32.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from bhnbench.contract import DataFile, Split
from bhnbench_tasks.datasets import files
from bhnbench_tasks.datasets.dataset import Dataset, ImageSource

if TYPE_CHECKING:
    import torch

MIRRORS = (
    "https://www.cs.toronto.edu/~kriz/",
    "https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10/",
)
FILE = DataFile(
    "cifar10/cifar-10-binary.tar.gz",
    "sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    170_052_171,
)
IMAGE_SHAPE = (32, 32)
N_CHANNELS = 3
N_TRAIN, N_VALIDATION = 45_000, 5_000
_TRAIN_MEMBERS = [f"data_batch_{number}.bin" for number in range(1, 6)]
_TEST_MEMBERS = ["test_batch.bin"]
_LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601


def load() -> Dataset:
    """Read the training files; the test file is read when the test split is asked for."""
    rows = _read(_TRAIN_MEMBERS)
    return Dataset(
        "cifar10",
        train=Split(rows.inputs[:-N_VALIDATION], rows.targets[:-N_VALIDATION]),
        validation=Split(rows.inputs[-N_VALIDATION:], rows.targets[-N_VALIDATION:]),
        n_classes=10,
        image_shape=IMAGE_SHAPE,
        read_test=cache(read_test),
        n_channels=N_CHANNELS,
    )


def read_test() -> Split:
    """The test split."""
    return _read(_TEST_MEMBERS)


def read_grey() -> torch.Tensor:
    """The images of the test split by their luminance: ``(n, 32, 32)`` float32 in [0, 1]."""
    import torch

    colours = read_test().inputs.reshape(-1, N_CHANNELS, *IMAGE_SHAPE)
    return torch.einsum("nchw,c->nhw", colours, torch.tensor(_LUMINANCE)).clamp(0, 1)


def _read(members: Sequence[str]) -> Split:
    import numpy as np
    import torch

    with tarfile.open(fileobj=io.BytesIO(files.read(FILE, MIRRORS)), mode="r:gz") as archive:
        opened = [archive.extractfile(f"cifar-10-batches-bin/{member}") for member in members]
        content = b"".join(file.read() for file in opened if file is not None)
    # A row is a byte of class, then the red, the green and the blue pixels.
    rows = np.frombuffer(content, np.uint8).reshape(-1, 1 + N_CHANNELS * 32 * 32)
    inputs = np.divide(rows[:, 1:], 255, dtype=np.float32)
    return Split(torch.from_numpy(inputs), torch.from_numpy(rows[:, 0].astype(np.int64)))


SOURCE = ImageSource(
    doc="CIFAR-10: 32x32 colour photographs, 50 000 + 10 000",
    origin="A. Krizhevsky (2009)",
    load=load,
    files=(FILE,),
    mirrors=MIRRORS,
    n_train=N_TRAIN,
    image_shape=IMAGE_SHAPE,
    n_channels=N_CHANNELS,
)
