"""What the tasks share that train a classifier of images: data set, network and budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from bhnbench.contract import Problem, Split, Task
from bhnbench.likelihoods import Categorical
from bhnbench.space import Choice, Int, check_settings, setting
from bhnbench_tasks.datasets import (
    NAMES,
    data_digest,
    image_shape,
    load_dataset,
    n_channels,
    n_train_rows,
    prepare_dataset,
)
from bhnbench_tasks.datasets.dataset import Dataset
from bhnbench_tasks.networks import cnn_32, lenet_5, mlp

NETWORKS = Choice("mlp", "lenet_300_100", "lenet_5", "cnn_32")
CONVOLUTIONAL = ("lenet_5", "cnn_32")


@dataclass(frozen=True, kw_only=True)
class ImageTask(Task):
    """A classifier of images, its data and its budget. A task derives from it and scores it."""

    dataset: str = setting("digits", "data set, or a file of your own arrays", valid=NAMES)
    n_train: int | None = setting(
        None, "first training images to use; null for all", valid=Int(1, 60_000)
    )
    epochs: int = setting(50, "passes over the training images", valid=Int(1, 100_000))
    batch_size: int = setting(32, "images in a minibatch", valid=Int(1, 60_000))
    network: str = setting(
        "mlp", "the network; lenet_5 and cnn_32 are for images of 28x28", valid=NETWORKS
    )
    n_hidden: int = setting(100, "ReLU units of a hidden layer of the mlp", valid=Int(1, 10_000))
    n_layers: int = setting(2, "hidden layers of the mlp", valid=Int(1, 3))
    n_samples: int = setting(100, "posterior samples at scoring", valid=Int(1, 10_000))

    def __post_init__(self) -> None:
        check_settings(self)
        mistakes = self.mistakes()
        if mistakes:
            raise ValueError("; ".join(mistakes))

    def mistakes(self) -> list[str]:
        """Settings that do not go together, a sentence each; a task adds its own."""
        mistakes = []
        available = n_train_rows(self.dataset)
        if self.n_train is not None and self.n_train > available:
            mistakes.append(
                f"n_train <= {available} must hold for {self.dataset}, "
                f"but got n_train={self.n_train}; null takes all"
            )
        height, width = image_shape(self.dataset)
        channels = n_channels(self.dataset)
        if self.network in CONVOLUTIONAL and (channels, height, width) != (1, 28, 28):
            shape = f"{height}x{width}" + (f" in {channels} channels" if channels > 1 else "")
            mistakes.append(
                f"network: {self.network} needs images of 28x28 pixels, "
                f"but {self.dataset} has {shape}; take mnist or another network"
            )
        return mistakes

    @property
    def data_digest(self) -> str:
        """Digest of the data set."""
        return data_digest(self.dataset)

    def prepare(self) -> None:
        """Fetch and check the data set."""
        prepare_dataset(self.dataset)

    def load(self) -> Dataset:
        """The data set."""
        return load_dataset(self.dataset)

    def problem(
        self, dataset: Dataset, *, train: Split | None = None, validation: Split | None = None
    ) -> Problem:
        """What a method is given: the first ``n_train`` images, or ``train``.

        Args:
            dataset: gives what is not given, the classes and the network's inputs.
            train: other training examples.
            validation: other validation examples.
        """
        return Problem(
            train=train if train is not None else first(dataset.train, self.n_train),
            validation=validation if validation is not None else dataset.validation,
            likelihood=Categorical(dataset.n_classes),
            network=self._network(dataset),
            epochs=self.epochs,
            batch_size=self.batch_size,
        )

    def _network(self, dataset: Dataset) -> Callable[[], nn.Module]:
        if self.network == "lenet_5":
            return partial(lenet_5, dataset.n_classes)
        if self.network == "cnn_32":
            return partial(cnn_32, dataset.n_classes)
        hidden = (
            (300, 100) if self.network == "lenet_300_100" else self.n_layers * (self.n_hidden,)
        )
        return partial(mlp, dataset.n_inputs, hidden, dataset.n_classes)


def first(split: Split, n: int | None) -> Split:
    """The first ``n`` examples, or all of them."""
    return Split(split.inputs[:n], split.targets[:n])
