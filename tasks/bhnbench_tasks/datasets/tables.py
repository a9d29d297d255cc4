"""Tables for regression by name, read once in a process. Their tensors are shared."""

from __future__ import annotations

from bhnbench_tasks.datasets import arrays, california, diabetes, uci
from bhnbench_tasks.datasets.catalogue import Catalogue
from bhnbench_tasks.datasets.regression_table import RegressionTable
from bhnbench_tasks.datasets.source import Source

__all__ = ["SOURCES", "TABLES", "RegressionTable", "load_table", "prepare_table", "table_digest"]

SOURCES: dict[str, Source[RegressionTable]] = {
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
_TABLES = Catalogue(SOURCES, arrays.load_table)
TABLES = _TABLES.names
load_table = _TABLES.load
prepare_table = _TABLES.prepare
table_digest = _TABLES.digest
