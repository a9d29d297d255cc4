"""What identifies a study and a run: plain data with a key, and nothing else.

A key is the sha256 of canonical JSON of everything that decides the numbers: names, versions,
settings and data, never paths, hosts or resources.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal

from bhnbench.contract import Direction, Holdout
from bhnbench.space import Choice, Float, Int, Space, Value

Phase = Literal["search", "evaluate"]
SEARCH_SEED = 0  # evaluation seeds are 1, 2, ...: fresh by construction
_SPACES: dict[str, type[Float | Int | Choice]] = {"float": Float, "int": Int, "choice": Choice}


def digest(content: object) -> str:
    """sha256 of the canonical JSON of ``content``."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class PluginSpec:
    """A method or task with its settings."""

    name: str
    version: str
    settings: Mapping[str, Value]
    target: str  # where to import it from; not part of any key
    data_digest: str = ""  # tasks only
    files: list[str] = field(default_factory=list)  # settings that are paths of a user's files

    @property
    def identity(self) -> dict[str, Any]:
        """What goes into keys; of a file its content, which is in ``data_digest``."""
        return {
            "name": self.name,
            "version": self.version,
            "settings": dict(self.settings) | dict.fromkeys(self.files, "file"),
            "data_digest": self.data_digest,
        }


@dataclass(frozen=True)
class RunSpec:
    """One execution: (task, method, configuration, phase, seed)."""

    task: PluginSpec
    method: PluginSpec
    phase: Phase
    seed: int

    @property
    def holdout(self) -> Holdout:
        """Search is scored on validation data, evaluation on test data."""
        return "validation" if self.phase == "search" else "test"

    @cached_property
    def key(self) -> str:
        """Identity of the run: equal keys, equal numbers."""
        return digest(
            {
                "task": self.task.identity,
                "method": self.method.identity,
                "phase": self.phase,
                "holdout": self.holdout,
                "seed": self.seed,
            }
        )


@dataclass(frozen=True)
class EarlyTermination:
    """Successive halving: the rung at step ``min_iter * eta**k`` keeps the best 1/eta."""

    min_iter: int
    eta: int


@dataclass(frozen=True)
class SearchSpec:
    """How configurations are proposed; how many is the sweep's business, not the study's."""

    sampler: Literal["tpe", "random", "grid"]
    seed: int
    early_termination: EarlyTermination | None


@dataclass(frozen=True)
class StudySpec:
    """One method on one task, and how its configuration is chosen. Shared by all sweeps."""

    task: PluginSpec
    method: PluginSpec  # settings: the configuration of trial 0
    space: Mapping[str, Space]  # empty: nothing is searched
    search: SearchSpec | None
    metric: str
    direction: Direction
    unit: str = field(default="", compare=False)  # of the metric, for people
    labels: tuple[str, str] = field(default=("", ""), compare=False)  # (task, method), for people

    @cached_property
    def key(self) -> str:
        """Identity of the study."""
        return digest(
            {
                "task": self.task.identity,
                "method": self.method.identity,
                "space": space_to_json(self.space),
                "search": asdict(self.search) if self.search else None,
                "metric": self.metric,
                "direction": self.direction,
            }
        )

    def run(self, configuration: Mapping[str, Value], phase: Phase, seed: int) -> RunSpec:
        """The run of one configuration."""
        settings = {**self.method.settings, **configuration}
        method = PluginSpec(self.method.name, self.method.version, settings, self.method.target)
        return RunSpec(self.task, method, phase, seed)

    def search_run(self, configuration: Mapping[str, Value]) -> RunSpec:
        """The run that scores a trial; the sampler's seed is another matter."""
        return self.run(configuration, "search", SEARCH_SEED)


def space_to_json(space: Mapping[str, Space]) -> dict[str, Any]:
    """Plain data from which ``space_from_json`` makes the same space."""
    kinds = {cls: kind for kind, cls in _SPACES.items()}
    return {name: {"kind": kinds[type(s)], **asdict(s)} for name, s in space.items()}


def space_from_json(content: Mapping[str, Any]) -> dict[str, Space]:
    """The inverse of ``space_to_json``."""
    return {name: _one_space(dict(entry)) for name, entry in content.items()}


def _one_space(entry: dict[str, Any]) -> Space:
    kind = entry.pop("kind")
    return Choice(*entry["values"]) if kind == "choice" else _SPACES[kind](**entry)


def run_to_json(run: RunSpec) -> dict[str, Any]:
    """Plain data from which ``run_from_json`` makes the same run."""
    return asdict(run)


def run_from_json(content: Mapping[str, Any]) -> RunSpec:
    """The inverse of ``run_to_json``."""
    task, method = PluginSpec(**content["task"]), PluginSpec(**content["method"])
    return RunSpec(task, method, content["phase"], content["seed"])


def study_to_json(study: StudySpec) -> dict[str, Any]:
    """Plain data from which ``study_from_json`` makes the same study, less its labels."""
    content = asdict(study) | {"space": space_to_json(study.space)}
    del content["labels"]
    return content


def study_from_json(content: Mapping[str, Any], labels: tuple[str, str]) -> StudySpec:
    """The inverse of ``study_to_json``."""
    search = content["search"]
    if search is not None:
        early = search["early_termination"]
        early = EarlyTermination(**early) if early else None
        search = SearchSpec(search["sampler"], search["seed"], early)
    return StudySpec(
        task=PluginSpec(**content["task"]),
        method=PluginSpec(**content["method"]),
        space=space_from_json(content["space"]),
        search=search,
        metric=content["metric"],
        direction=content["direction"],
        unit=content["unit"],
        labels=labels,
    )
