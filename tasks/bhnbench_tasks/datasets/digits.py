"""The 8x8 digits of scikit-learn: 1797 handwritten digits that need no download.

Source: E. Alpaydin and C. Kaynak, "Optical recognition of handwritten digits", UCI machine
learning repository (1998), the part that its authors use for testing.
"""

from __future__ import annotations

import hashlib
from functools import cache

from bhnbench.contract import Split
from bhnbench.errors import DataError
from bhnbench_tasks.datasets.dataset import Dataset, ImageSource
from bhnbench_tasks.datasets.order import shuffled

N_TRAIN = 1000  # validation 399, test 398
IMAGE_SHAPE = (8, 8)
DIGEST = "609562171178772ef96714dc9f7f2b620f8b586b1d0072f01bed0207ea98b068"
_DEAL = {"train": range(5), "validation": range(5, 7), "test": range(7, 9)}  # of nine rows


def load() -> Dataset:
    """Read, check and split the digits."""
    splits = _splits()
    return Dataset(
        "digits",
        train=splits["train"],
        validation=splits["validation"],
        n_classes=10,
        image_shape=IMAGE_SHAPE,
        read_test=_read_test,
    )


def _read_test() -> Split:
    return _splits()["test"]


@cache
def _splits() -> dict[str, Split]:
    import torch
    from sklearn.datasets import load_digits  # takes 1.5 s to import

    images, labels = load_digits(return_X_y=True)
    inputs, targets = torch.from_numpy(images).float(), torch.from_numpy(labels).long()
    dealt = {name: Split(inputs[r], targets[r]) for name, r in _deal(targets.tolist()).items()}
    _check(list(dealt.values()))
    return {name: Split(split.inputs / 16, split.targets) for name, split in dealt.items()}


def _deal(labels: list[int]) -> dict[str, list[int]]:
    """Shuffle the rows once and for ever, then deal out each class 5 : 2 : 2."""
    rows = shuffled(len(labels))
    by_class = sorted(rows, key=lambda row: labels[row])
    dealt = {row: place % 9 for place, row in enumerate(by_class)}
    return {name: [r for r in rows if dealt[r] in share] for name, share in _DEAL.items()}


def _check(splits: list[Split]) -> None:
    tensors = [tensor for split in splits for tensor in (split.inputs, split.targets)]
    content = b"".join(tensor.byte().numpy().tobytes() for tensor in tensors)
    actual = hashlib.sha256(content).hexdigest()
    if actual != DIGEST:
        raise DataError(
            f"digits: sha256 of scikit-learn's digits must be {DIGEST}, but got {actual}; "
            "install another version of scikit-learn"
        )


SOURCE = ImageSource(
    doc="Digits: 1797 handwritten digits of 8x8 pixels; with scikit-learn",
    origin="E. Alpaydin and C. Kaynak, UCI repository (1998); bundled with scikit-learn",
    load=load,
    bundled_digest=DIGEST,
    n_train=N_TRAIN,
    image_shape=IMAGE_SHAPE,
)
