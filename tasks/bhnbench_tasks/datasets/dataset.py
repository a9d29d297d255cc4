"""A data set whose test split has to be asked for by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from bhnbench.contract import Holdout, Split


@dataclass(frozen=True)
class Source:
    """Where a data set comes from, and what is known of it without reading it."""

    digest: str
    n_train: int
    load: Callable[[], Dataset]
    prepare: Callable[[], object]  # fetches and checks every file


@dataclass(frozen=True)
class Dataset:
    """Images with classes: inputs ``(n, height * width)`` float32 in [0, 1], targets ``(n,)``.

    The test split is no field: a search asks for ``holdout("validation")`` and cannot meet it.
    """

    name: str
    train: Split
    validation: Split
    n_classes: int
    image_shape: tuple[int, int]
    read_test: Callable[[], Split] = field(repr=False)

    @property
    def n_inputs(self) -> int:
        """Pixels in an image."""
        return self.image_shape[0] * self.image_shape[1]

    def holdout(self, name: Holdout) -> Split:
        """The split to score on; the test split is read only when it is asked for."""
        return self.read_test() if name == "test" else self.validation
