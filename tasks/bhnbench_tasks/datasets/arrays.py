"""A user's own arrays, in an ``.npz`` file, as a data set or as a table for regression.

Rows are dealt out once and for ever by hash, unless the file does it: with ``train_inputs``,
``train_targets``, and so on for ``validation_`` and ``test_``.
"""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING

from bhnbench.contract import Split
from bhnbench.errors import DataError
from bhnbench_tasks.datasets import npz
from bhnbench_tasks.datasets.dataset import Dataset
from bhnbench_tasks.datasets.order import N_SPLITS, deal, split_by_hash
from bhnbench_tasks.datasets.regression_table import Part, RegressionTable

if TYPE_CHECKING:
    import torch

_TABLE_PARTS = ("train", "test")
_MIN_IMAGES = 4  # of fewer, dealt out 60 : 20 : 20, a part has none


def load_dataset(path: str) -> Dataset:
    """The arrays as a data set for classification; read once as long as the file stays the same.

    Inputs are ``(n, d)``, ``(n, height, width)`` or ``(n, channels, height, width)``: uint8, which
    is divided by 255, or real numbers, which are left as they are. Targets are ``(n,)``, whole
    numbers: the classes 0, 1, ... Rows are dealt out 60 : 20 : 20.

    Raises:
        DataError: the file is missing, or holds something else.
    """
    return _load_dataset(path, npz.digest(path))


@cache
def _load_dataset(path: str, _digest: str) -> Dataset:
    parts = npz.read_parts(path, needed=npz.PARTS)
    for part, arrays in parts.items():
        _check_images(path, part, *arrays)
    n_classes = _count_classes(path, [targets for _, targets in parts.values()])
    shape = next(iter(parts.values()))[0].shape[1:]
    splits = [Split(_pixels(inputs), _classes(targets)) for inputs, targets in parts.values()]
    train, validation, test = splits if len(splits) > 1 else deal(splits[0])
    return Dataset(
        path,
        train=train,
        validation=validation,
        n_classes=n_classes,
        image_shape=(1, shape[0]) if len(shape) == 1 else (shape[-2], shape[-1]),
        read_test=lambda: test,
        n_channels=shape[0] if len(shape) == 3 else 1,
        value_range=_range_of([split.inputs for split in splits]),
    )


def _check_images(path: str, part: str, inputs: npz.Array, targets: npz.Array) -> None:
    name_of_inputs, name_of_targets = npz.names_of(part)
    if inputs.dtype.name != "uint8" and inputs.dtype.kind != "f":
        raise DataError(
            f"{path}: {name_of_inputs} must be uint8 or real numbers, but is {inputs.dtype}"
        )
    if part == npz.WHOLE and len(inputs) < _MIN_IMAGES:
        raise DataError(
            f"{path}: {name_of_inputs} must have {_MIN_IMAGES} rows or more, so that each part "
            f"gets one, but has {len(inputs)}; add some, or deal them out in the file"
        )
    if inputs.ndim > 4:
        raise DataError(
            f"{path}: {name_of_inputs} must be (n, d), (n, height, width) or (n, channels, "
            f"height, width), but is {inputs.shape}"
        )
    if targets.ndim != 1 or targets.dtype.kind not in "iu":
        raise DataError(
            f"{path}: {name_of_targets} must be classes, whole numbers of shape (n,), but is "
            f"{targets.dtype} {targets.shape}"
        )
    npz.check_finite(path, name_of_inputs, inputs)


def _count_classes(path: str, targets: list[npz.Array]) -> int:
    import numpy as np

    found = np.unique(np.concatenate(targets))
    if len(found) < 2 or found[0] != 0 or found[-1] != len(found) - 1:
        shown = ", ".join(str(label) for label in found[:10]) + (
            ", ..." if len(found) > 10 else ""
        )
        raise DataError(
            f"{path}: targets must be the classes 0, 1, ... k - 1, each at least once and two at "
            f"least, but are {shown}"
        )
    return len(found)


def _pixels(inputs: npz.Array) -> torch.Tensor:
    import torch

    values = torch.from_numpy(inputs).flatten(1)
    return values.float() / 255 if inputs.dtype.name == "uint8" else values.float()


def _range_of(inputs: list[torch.Tensor]) -> tuple[float, float]:
    """The lowest and the highest value."""
    return min(part.min().item() for part in inputs), max(part.max().item() for part in inputs)


def _classes(targets: npz.Array) -> torch.Tensor:
    import torch

    return torch.from_numpy(targets.astype("int64"))


def load_table(path: str) -> RegressionTable:
    """The arrays as a table for regression; read once as long as the file stays the same.

    Inputs are ``(n, d)``, targets ``(n,)`` or ``(n, 1)``, both any numbers. There are 20 splits by
    hash, 90 % : 10 %; or one, if the file deals out its rows (its validation rows, if any, count
    as training rows: a task cuts its own validation data from these).

    Raises:
        DataError: the file is missing, or holds something else.
    """
    return _load_table(path, npz.digest(path))


@cache
def _load_table(path: str, _digest: str) -> RegressionTable:
    import torch

    parts = npz.read_parts(path, needed=_TABLE_PARTS)
    for part, arrays in parts.items():
        _check_table(path, part, *arrays)
    inputs = torch.cat([_reals(inputs) for inputs, _ in parts.values()])
    targets = torch.cat([_reals(targets).reshape(-1, 1) for _, targets in parts.values()])
    if npz.WHOLE in parts:
        n_splits, rows = N_SPLITS, partial(split_by_hash, len(inputs))
    else:
        n_train = len(inputs) - len(parts["test"][0])
        n_splits, rows = 1, partial(_halves, n_train, len(inputs))
    _check_size(path, len(rows("train", 0)))
    return RegressionTable(path, inputs, targets, n_splits, rows)


def _halves(n_train: int, n: int, part: Part, _k: int) -> torch.Tensor:
    import torch

    return torch.arange(n_train) if part == "train" else torch.arange(n_train, n)


def _check_table(path: str, part: str, inputs: npz.Array, targets: npz.Array) -> None:
    name_of_inputs, name_of_targets = npz.names_of(part)
    for name, array in ((name_of_inputs, inputs), (name_of_targets, targets)):
        if array.dtype.kind not in "fiu":
            raise DataError(f"{path}: {name} must be numbers, but is {array.dtype}")
        npz.check_finite(path, name, array)
    if inputs.ndim != 2 or targets.shape not in ((len(inputs),), (len(inputs), 1)):
        raise DataError(
            f"{path}: {name_of_inputs} must be (n, d) and {name_of_targets} (n,) or (n, 1), but "
            f"they are {inputs.shape} and {targets.shape}"
        )


def _check_size(path: str, n_train: int) -> None:
    if n_train < 2:
        raise DataError(
            f"{path}: besides test rows there must be two or more, to train on and to validate "
            f"with, but the number of them is {n_train}; add rows"
        )


def _reals(array: npz.Array) -> torch.Tensor:
    import torch

    return torch.from_numpy(array.astype("float64"))
