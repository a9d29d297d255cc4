"""Whether a sweep gave the same numbers in two places."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from bhnbench.sweep.document import read_sweep

PLACE = {"run_id", "run_ids", "cost"}  # differ from ledger to ledger and from machine to machine
SEARCH = {"search", "searched", "fixed", "trial", "validation"}


def numbers(content: Any, without: set[str] = PLACE) -> Any:
    """A leaderboard in JSON without what depends on the place; every other digit stays."""
    if isinstance(content, Mapping):
        kept = {name: value for name, value in content.items() if name not in without}
        return {name: numbers(value, without) for name, value in kept.items()}
    return [numbers(item, without) for item in content] if isinstance(content, list) else content


def evaluations(content: Any) -> Any:
    """The same without the way to the configurations."""
    return numbers(content, PLACE | SEARCH)


def frozen(path: Path, overrides: list[str], board: Mapping[str, Any], folder: Path) -> Path:
    """The same sweep with the configurations that a leaderboard names, and nothing to search.

    Which configurations a search by TPE tries, and which it stops early, depends on which run ends
    first, so that it is not the same twice. The scores of a configuration are.
    """
    (table,) = board["tasks"]  # or a method would need a configuration for each
    content = dict(read_sweep(path, overrides).content)
    content.pop("search", None)
    names = {label_of(entry): name_of(entry) for entry in content["methods"]}
    content["methods"] = [
        {"name": names[row["label"]], "label": row["label"], **row["chosen"]["configuration"]}
        for row in table["methods"]
    ]
    frozen = folder / "frozen.yaml"
    frozen.write_text(yaml.safe_dump(content))
    return frozen


def name_of(entry: str | Mapping[str, Any]) -> str:
    return entry if isinstance(entry, str) else entry["name"]


def label_of(entry: str | Mapping[str, Any]) -> str:
    return entry if isinstance(entry, str) else entry.get("label", entry["name"])
