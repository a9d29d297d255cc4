"""Data sets in the layout of MNIST: images and labels in IDX files, packed with gzip."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING

from bhnbench.contract import DataFile, Split
from bhnbench_tasks.datasets import files
from bhnbench_tasks.datasets.dataset import Dataset, ImageSource

if TYPE_CHECKING:
    import torch

N_TRAIN = 50_000
IMAGE_SHAPE = (28, 28)
_IMAGES_HEADER, _LABELS_HEADER = 16, 8  # bytes: type, then the size of each dimension


@dataclass(frozen=True)
class IdxPart:
    """A file of 28x28 images and the file of their labels."""

    images: DataFile
    labels: DataFile
    mirrors: tuple[str, ...]

    def read(self) -> Split:
        """Inputs ``(n, 784)`` in [0, 1] and classes ``(n,)``."""
        import numpy as np
        import torch

        labels = files.read(self.labels, self.mirrors)
        classes = np.frombuffer(labels, np.uint8, offset=_LABELS_HEADER).astype(np.int64)
        return Split(self.read_images().flatten(1), torch.from_numpy(classes))

    def read_images(self) -> torch.Tensor:
        """``(n, 28, 28)`` float32 in [0, 1]."""
        import numpy as np
        import torch

        images = files.read(self.images, self.mirrors)
        pixels = np.frombuffer(images, np.uint8, offset=_IMAGES_HEADER)
        scaled = np.divide(pixels, 255, dtype=np.float32)
        return torch.from_numpy(scaled).reshape(-1, *IMAGE_SHAPE)


def mnist_like(name: str, train: IdxPart, test: IdxPart, *, doc: str, origin: str) -> ImageSource:
    """60 000 + 10 000 images of ten classes.

    The training split is the first 50 000 rows of the training file, validation its last 10 000,
    test the 10 000 rows of the test file.
    """
    return ImageSource(
        doc=doc,
        origin=origin,
        load=partial(_load, name, train, test),
        files=(train.images, train.labels, test.images, test.labels),
        mirrors=train.mirrors,
        n_train=N_TRAIN,
        image_shape=IMAGE_SHAPE,
    )


def _load(name: str, train: IdxPart, test: IdxPart) -> Dataset:
    """Read the training file; the test file is read when the test split is asked for."""
    rows = train.read()
    return Dataset(
        name,
        train=Split(rows.inputs[:N_TRAIN], rows.targets[:N_TRAIN]),
        validation=Split(rows.inputs[N_TRAIN:], rows.targets[N_TRAIN:]),
        n_classes=10,
        image_shape=IMAGE_SHAPE,
        read_test=cache(test.read),
    )
