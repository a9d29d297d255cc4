"""A data set whose test split has to be asked for by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from bhnbench.contract import Holdout, Split
from bhnbench_tasks.datasets.source import Source


@dataclass(frozen=True)
class Dataset:
    """Images with classes: inputs ``(n, n_inputs)`` float32 in [0, 1], targets ``(n,)``.

    An image of several channels lies channel by channel: ``(n_channels, height, width)``. A user's
    own vectors of d features are images of shape ``(1, d)``. A user's own inputs need not lie in
    [0, 1]: ``value_range`` says where they do.

    The test split is no field: a search asks for ``holdout("validation")`` and cannot meet it.
    """

    name: str
    train: Split
    validation: Split
    n_classes: int
    image_shape: tuple[int, int]
    read_test: Callable[[], Split] = field(repr=False)
    n_channels: int = 1
    value_range: tuple[float, float] = (0.0, 1.0)  # that no input of any split leaves

    @property
    def n_inputs(self) -> int:
        """Numbers in an image."""
        return self.n_channels * self.image_shape[0] * self.image_shape[1]

    def holdout(self, name: Holdout) -> Split:
        """The split to score on; the test split is read only when it is asked for."""
        return self.read_test() if name == "test" else self.validation


@dataclass(frozen=True, kw_only=True)
class ImageSource(Source[Dataset]):
    """Where a data set of images comes from."""

    n_train: int
    image_shape: tuple[int, int]
    n_channels: int = 1
    n_classes: int = 10
