"""A sweep file, read into a ``Sweep``: every mistake is found before anything runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bhnbench.errors import InvalidSweepError
from bhnbench.space import Choice
from bhnbench.specs import EarlyTermination, SearchSpec, StudySpec, digest
from bhnbench.sweep import schema
from bhnbench.sweep.entries import EntryReader, MethodEntry, TaskEntry
from bhnbench.sweep.execution import Resources, Retries, described, resources_of
from bhnbench.sweep.validation import validate
from bhnbench.sweep.yaml_file import (
    Document,
    KeyPath,
    Mistake,
    format_path,
    parse_value,
    read_document,
)


@dataclass(frozen=True)
class Sweep:
    """A sweep file without mistakes."""

    name: str
    studies: tuple[StudySpec, ...]  # task by task, methods in the file's order
    n_trials: int  # a study; 0 without search
    n_seeds: int
    resources: Resources  # of a run whose task and method ask for nothing else
    retries: Retries
    storage: str | None  # a folder or an address for the runs' progress; None: the home's
    content: Mapping[str, Any]  # the document, overrides applied, less how it is executed
    own_resources: Mapping[tuple[str, str], Resources]  # of each study, by its labels

    @property
    def digest(self) -> str:
        """Identity of the document."""
        return digest(self.content)

    def resources_of(self, study: StudySpec) -> Resources:
        """What one run of a study of this sweep occupies."""
        return self.own_resources[study.labels]

    def trials_of(self, study: StudySpec) -> int:
        """Size of a study's search: none where nothing is searched, all points of a grid."""
        if not study.space or study.search is None:
            return 0
        if study.search.sampler != "grid":
            return self.n_trials
        size = math.prod(len(s.values) for s in study.space.values() if isinstance(s, Choice))
        return min(size, self.n_trials) if self.n_trials else size


def read_sweep(path: Path, overrides: Iterable[str] = ()) -> Sweep:
    """Read and check a sweep file.

    Args:
        path: the YAML file.
        overrides: ``dotted.path=value`` each; they win over the file.

    Raises:
        InvalidSweepError: with every mistake, one line each.
    """
    document = read_document(path)
    if not isinstance(document.content, dict):
        rule = "must be a mapping with tasks and methods"
        raise InvalidSweepError([document.mistake((), rule).text])
    overridden = (_override(document, text) for text in overrides)
    mistakes = [Mistake(0, text) for text in overridden if text]
    model, structural = validate(document)
    reader = EntryReader(document)
    search = document.content.get("search")
    grid = isinstance(search, dict) and search.get("sampler") == "grid"
    tasks = reader.tasks(document.content.get("metric"))
    methods = reader.methods(searching=search is not None, grid=grid)
    mistakes += structural + reader.mistakes + _check_search(document, methods)
    if mistakes or model is None:
        by_line = sorted(dict.fromkeys(mistakes), key=lambda mistake: mistake.line)
        raise InvalidSweepError([mistake.text for mistake in by_line])
    return _build(document, model, tasks, methods)


def _override(document: Document, text: str) -> str | None:
    """Apply one ``KEY=VALUE``; returns the mistake, if there is one."""
    dotted, equals, raw = text.partition("=")
    if not equals or not dotted:
        return f"--set {text}: must be KEY=VALUE, such as --set evaluate.seeds=3"
    path: KeyPath = tuple(
        int(p) if p.isascii() and p.isdecimal() else p for p in dotted.split(".")
    )
    try:
        value = parse_value(raw)
    except ValueError as error:
        return f"--set {text}: {error}"
    here = document.content
    for depth, part in enumerate(path):
        last = depth == len(path) - 1
        if isinstance(here, list):
            if not isinstance(part, int) or part >= len(here):
                return f"--set {text}: {format_path(path[:depth])} has no entry {part}, 0 first"
            if not last and isinstance(here[part], str):
                here[part] = {"name": here[part]}  # a bare name is short for a mapping
        elif not isinstance(here, dict):
            return f"--set {text}: {format_path(path[:depth])} holds a value, not keys"
        elif not last and here.get(part) is None:
            here[part] = {}
        if last:
            here[part] = value
            document.overrides[path] = text
        else:
            here = here[part]
    return None


def _check_search(document: Document, methods: Sequence[MethodEntry]) -> list[Mistake]:
    search = document.content.get("search")
    if not isinstance(search, dict) or set(search) - set(schema.SearchDocument.model_fields):
        return []  # what seems to lack may be misspelt
    sampler = search.get("sampler", "tpe")
    rule = ""
    if sampler == "grid" and methods and not any(method.space for method in methods):
        rule = "sampler grid needs `values` under some method's `parameters`, but got none"
    if sampler in ("tpe", "random") and search.get("trials") is None:
        rule = f"sampler {sampler} needs `trials`, the number of configurations a study"
    return [document.mistake(("search",), rule)] if rule else []


def _build(
    document: Document,
    model: schema.SweepDocument,
    tasks: Sequence[TaskEntry],
    methods: Sequence[MethodEntry],
) -> Sweep:
    search = None
    if model.search is not None:
        early = model.search.early_terminate
        termination = EarlyTermination(early.min_iter, early.eta) if early else None
        search = SearchSpec(model.search.sampler, model.search.seed, termination)
    studies = tuple(
        StudySpec(
            task=task.spec,
            method=method.spec,
            space=method.space,
            search=search if method.space else None,
            metric=task.metric.name,
            direction=task.metric.direction,
            unit=task.metric.unit,
            labels=(task.label, method.label),
        )
        for task in tasks
        for method in methods
    )
    return Sweep(
        name=model.name,
        studies=studies,
        n_trials=(model.search.trials or 0) if model.search else 0,
        n_seeds=model.evaluate.seeds,
        resources=resources_of(model.resources),
        retries=Retries(**model.retries.model_dump()),
        storage=model.storage,
        content=described(document.content),
        own_resources={
            (task.label, method.label): resources_of(model.resources, *asked)
            for task, for_task in zip(tasks, model.tasks, strict=True)
            for method, for_method in zip(methods, model.methods, strict=True)
            for asked in [(for_task.resources, for_method.resources)]
        },
    )
