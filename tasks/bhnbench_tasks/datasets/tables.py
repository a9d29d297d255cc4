"""Tables for regression by name, read once in a process. Their tensors are shared."""

from __future__ import annotations

from functools import cache

from bhnbench.progress_bar import show
from bhnbench.space import ChoiceOrFile
from bhnbench_tasks.datasets import arrays, california, diabetes, npz, uci
from bhnbench_tasks.datasets.regression_table import RegressionTable
from bhnbench_tasks.datasets.source import Source

__all__ = ["TABLES", "RegressionTable", "load_table", "prepare_table", "table_digest"]

_SOURCES: dict[str, Source[RegressionTable]] = {
    "boston": uci.BOSTON,
    "concrete": uci.CONCRETE,
    "energy": uci.ENERGY,
    "kin8nm": uci.KIN8NM,
    "naval": uci.NAVAL,
    "power": uci.POWER,
    "protein": uci.PROTEIN,
    "wine": uci.WINE,
    "yacht": uci.YACHT,
    "diabetes": diabetes.SOURCE,
    "california": california.SOURCE,
}
TABLES = ChoiceOrFile(*_SOURCES, suffix=npz.SUFFIX)


def load_table(name: str) -> RegressionTable:
    """The table of that name, or in that file of the user's.

    Raises:
        DataError: its files are missing, or are not what they should be.
    """
    return _load(name) if name in _SOURCES else arrays.load_table(name)


@cache
def _load(name: str) -> RegressionTable:
    return _SOURCES[name].load()


def prepare_table(name: str) -> None:
    """Fetch and check every file of the table.

    Raises:
        DataError: a file cannot be had, or is not what it should be.
    """
    if name in _SOURCES:
        _SOURCES[name].prepare(show)
    else:
        arrays.load_table(name)


def table_digest(name: str) -> str:
    """Digest of the table's content and splits; of a known table it reads nothing."""
    return _SOURCES[name].digest if name in _SOURCES else npz.digest(name)
