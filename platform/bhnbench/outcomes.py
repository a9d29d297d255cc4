"""What plugins return, checked and made plain, so that nothing of it can hurt the driver."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from bhnbench.contract import Outcome, Table, Task
from bhnbench.errors import ContractError, DivergedError

NAME_LENGTH = 100  # what the ledger's columns hold
_PLAIN_KINDS = "biufU"  # bool, integers, floats, text


def checked_outcome(outcome: Outcome, task: Task) -> Outcome:
    """The outcome with plain scores and arrays.

    Raises:
        ContractError: it is not what the task promised.
        DivergedError: a score is not finite.
    """
    names = [metric.name for metric in task.metrics]
    missing = set(names) - set(outcome.scores)
    extra = set(outcome.scores) - set(names)
    if missing or extra:
        found = [f"{', '.join(sorted(missing))} missing"] if missing else []
        found += [f"{', '.join(sorted(map(str, extra)))} not declared"] if extra else []
        raise ContractError(f"scores must be exactly {', '.join(names)}, but {'; '.join(found)}")
    scores = {name: float(outcome.scores[name]) for name in names}
    for name, value in scores.items():
        if not math.isfinite(value):
            raise DivergedError(f"score {name} must be finite, but got {value}")
    tables = {check_name(name): _checked_table(name, t) for name, t in outcome.tables.items()}
    return Outcome(scores, tables)


def plain_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """Reported metrics as plain floats."""
    return {check_name(name): float(value) for name, value in metrics.items()}


def check_name(name: str) -> str:
    """A name that the ledger can hold."""
    if not isinstance(name, str) or not 0 < len(name) <= NAME_LENGTH:
        rule = f"names must be text of 1 to {NAME_LENGTH} characters"
        raise ContractError(f"{rule}, but got {name!r:.120}")
    return name


def _checked_table(name: str, table: Table) -> Table:
    columns = {check_name(column): np.asarray(values) for column, values in table.items()}
    lengths = {column: values.shape for column, values in columns.items()}
    if len(set(lengths.values())) > 1 or any(len(shape) != 1 for shape in lengths.values()):
        rule = f"columns of table {name} must be one-dimensional and of one length"
        raise ContractError(f"{rule}, but their shapes are {lengths}")
    for column, values in columns.items():
        if values.dtype.kind not in _PLAIN_KINDS:
            rule = f"column {column} of table {name} must hold numbers or text"
            raise ContractError(f"{rule}, but its type is {values.dtype}")
    return columns
