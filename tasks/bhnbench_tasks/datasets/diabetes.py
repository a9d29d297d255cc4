"""Diabetes: how far the disease of 442 patients had gone a year later; with scikit-learn.

Source: B. Efron, T. Hastie, I. Johnstone and R. Tibshirani, "Least angle regression" (2004). The
features are unscaled; the 20 splits, 90 % : 10 %, are by hash.
"""

from __future__ import annotations

import hashlib
from functools import partial
from typing import TYPE_CHECKING

from bhnbench.errors import DataError
from bhnbench_tasks.datasets.order import N_SPLITS, split_by_hash
from bhnbench_tasks.datasets.regression_table import RegressionTable
from bhnbench_tasks.datasets.source import Source

if TYPE_CHECKING:
    import torch

DIGEST = "e2e35cbfbe5a6a74da4a781fede45eba910a45a1aafb179029a30d8185200ef3"


def load() -> RegressionTable:
    """Read and check the table."""
    import torch
    from sklearn.datasets import load_diabetes

    features, progression = load_diabetes(return_X_y=True, scaled=False)
    inputs, targets = torch.from_numpy(features), torch.from_numpy(progression)[:, None]
    check(inputs, targets)
    rows = partial(split_by_hash, len(inputs))
    return RegressionTable("diabetes", inputs, targets, N_SPLITS, rows)


def check(inputs: torch.Tensor, targets: torch.Tensor) -> None:
    """The numbers, written as decimals, must be those of which the digest was made.

    Raises:
        DataError: they are others.
    """
    numbers = [*inputs.flatten().tolist(), *targets.flatten().tolist()]
    text = " ".join(f"{number:.10g}" for number in numbers)
    actual = hashlib.sha256(text.encode()).hexdigest()
    if actual != DIGEST:
        raise DataError(
            f"diabetes: sha256 of scikit-learn's table must be {DIGEST}, but got {actual}; "
            "install another version of scikit-learn"
        )


SOURCE = Source(
    doc="Diabetes: disease progression of 442 patients; with scikit-learn",
    origin="Efron, Hastie, Johnstone and Tibshirani (2004); bundled with scikit-learn",
    load=load,
    bundled_digest=DIGEST,
)
