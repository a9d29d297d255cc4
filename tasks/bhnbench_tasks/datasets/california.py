"""California housing: median house values of 20 640 districts in the census of 1990.

Source: R. K. Pace and R. Barry, "Sparse spatial autoregressions" (1997). The eight features are
those of scikit-learn, per household where that makes sense; the target is in 100 000 dollars. The
20 splits, 90 % : 10 %, are by hash.
"""

from __future__ import annotations

import io
import tarfile
from functools import partial

from bhnbench.contract import DataFile
from bhnbench.errors import DataError
from bhnbench_tasks.datasets import files
from bhnbench_tasks.datasets.order import N_SPLITS, split_by_hash
from bhnbench_tasks.datasets.regression_table import RegressionTable
from bhnbench_tasks.datasets.source import Source

MIRRORS = (
    "https://ndownloader.figshare.com/files/5976036",
    "https://www.dcc.fc.up.pt/~ltorgo/Regression/cal_housing.tgz",
)
FILE = DataFile(
    "california/cal_housing.tgz",
    "sha256:aaa5c9a6afe2225cc2aed2723682ae403280c4a3695a2ddda4ffb5d8215ea681",
)
_MEMBER = "CaliforniaHousing/cal_housing.data"


def load() -> RegressionTable:
    """Read the table."""
    import numpy as np
    import torch

    with tarfile.open(fileobj=io.BytesIO(files.read(FILE, MIRRORS)), mode="r:gz") as archive:
        member = archive.extractfile(_MEMBER)
        if member is None:
            raise DataError(f"{FILE.path}: must hold {_MEMBER}")
        raw = torch.from_numpy(np.loadtxt(member, delimiter=","))
    longitude, latitude, age, n_rooms, n_bedrooms, population, households, income, value = raw.T
    inputs = [income, age, n_rooms / households, n_bedrooms / households]
    inputs += [population, population / households, latitude, longitude]
    rows = partial(split_by_hash, len(raw))
    return RegressionTable(
        "california", torch.stack(inputs, dim=1), value[:, None] / 1e5, N_SPLITS, rows
    )


SOURCE = Source(
    doc="California housing: median house values of 20640 districts",
    origin="Pace and Barry (1997), as scikit-learn serves it",
    load=load,
    files=(FILE,),
    mirrors=MIRRORS,
)
