"""How a sweep is executed: what its runs occupy, when one is retried, where progress is kept.

None of it decides a number, so it enters no run's key, and ``described`` leaves it out of what a
sweep is known by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bhnbench.sweep.schema import ResourcesDocument

ONLY_EXECUTION = ("retries", "storage")  # keys of a sweep file


@dataclass(frozen=True)
class Resources:
    """What one run occupies."""

    cpu: int
    gpu: float
    memory: float = 0.0  # GiB of main memory; 0: none is asked for

    def __str__(self) -> str:
        parts = [f"{self.cpu} cpu", f"{self.gpu:g} gpu", f"{self.memory:g} GiB"]
        return ", ".join(part for part in parts if not part.startswith("0 "))

    @property
    def memory_bytes(self) -> int:
        """What schedulers are told."""
        return round(self.memory * 2**30)


@dataclass(frozen=True)
class Retries:
    """How often a run that failed is tried again, by what went wrong."""

    infra: int = 5  # its worker or node was lost
    out_of_memory: int = 1  # with a larger request
    diverged: int = 0
    error: int = 0


def resources_of(sweep: ResourcesDocument, *entries: ResourcesDocument | None) -> Resources:
    """The larger request of those entries that say something, else the sweep's."""
    said = [entry.model_dump(exclude_unset=True) for entry in entries if entry is not None]
    kinds = {kind for entry in said for kind in entry}
    own = {kind: max(entry[kind] for entry in said if kind in entry) for kind in kinds}
    return Resources(**(sweep.model_dump() | own))


def described(content: Mapping[str, Any]) -> dict[str, Any]:
    """A checked document less what was never part of a sweep's identity.

    The ``cpu`` and ``gpu`` of all its runs always were, and stay: ledgers know sweeps by them.
    """
    kept = {key: value for key, value in content.items() if key not in ONLY_EXECUTION}
    for kind in ("tasks", "methods"):
        kept[kind] = [_without_resources(entry) for entry in content[kind]]
    if "memory" in kept.get("resources", {}):
        kept["resources"] = {k: v for k, v in kept["resources"].items() if k != "memory"}
        if not kept["resources"]:
            del kept["resources"]
    return kept


def _without_resources(entry: str | Mapping[str, Any]) -> object:
    """A name that had to become a mapping to say what it needs is a name again."""
    if isinstance(entry, str) or "resources" not in entry:
        return entry
    rest = {key: value for key, value in entry.items() if key != "resources"}
    return rest["name"] if set(rest) == {"name"} else rest
