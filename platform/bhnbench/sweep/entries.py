"""The entries under ``tasks`` and ``methods``: names, settings and search spaces, checked."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from bhnbench import plugins
from bhnbench.contract import Method, Metric, Task
from bhnbench.errors import BhnbenchError, DataError, did_you_mean
from bhnbench.space import Choice, Field, Float, Int, Space, Value, fields_of, settings_of
from bhnbench.specs import PluginSpec
from bhnbench.sweep.parameters import read_parameter
from bhnbench.sweep.yaml_file import Document, KeyPath, Mistake


@dataclass(frozen=True)
class TaskEntry:
    """A task as one sweep uses it."""

    label: str
    spec: PluginSpec
    metric: Metric


@dataclass(frozen=True)
class MethodEntry:
    """A method as one sweep uses it."""

    label: str
    spec: PluginSpec  # settings: the configuration of trial 0
    space: Mapping[str, Space]


def bind(kind: plugins.Kind, name: str, settings: Mapping[str, object]) -> PluginSpec:
    """A plugin with its settings, checked.

    Raises:
        BhnbenchError: it is not installed or cannot be imported.
        ValueError: settings break a rule; "setting: rule" in one line each, or a rule alone.
    """
    plugin = plugins.find_plugin(kind, name)
    cls = plugin.load()
    values, mistakes = check_settings(cls, settings)
    if mistakes:
        raise ValueError("\n".join(f"{key}: {message}" for key, message in mistakes.items()))
    try:
        return _spec(plugin, cls, values)
    except ValueError as error:
        key, rule = _owner(str(error), settings)
        raise ValueError(f"{key}: {rule}" if key else rule) from error


def check_settings(
    cls: type, settings: Mapping[str, object]
) -> tuple[dict[str, Value], dict[str, str]]:
    """The settings in their declared types, and the mistakes, by name."""
    fields = fields_of(cls)
    values: dict[str, Value] = {}
    mistakes: dict[str, str] = {}
    for key, value in settings.items():
        if key not in fields:
            mistakes[key] = f"unknown field; {did_you_mean(key, fields)}"
            continue
        try:
            values[key] = fields[key].check(value)
        except ValueError as error:
            mistakes[key] = str(error)
    return values, mistakes


def _owner(rule: str, settings: Collection[str]) -> tuple[str | None, str]:
    """A plugin's own rule without the setting that it begins with, and that one, if given."""
    match = re.match(r"(\w+)(?:: | (?=must ))", rule)
    if match is None or match[1] not in settings:
        return None, rule
    return match[1], rule[match.end() :]


def _spec(plugin: plugins.Plugin, cls: type, values: Mapping[str, Value]) -> PluginSpec:
    instance: Method | Task = cls(**values)
    data = instance.data_digest if isinstance(instance, Task) else ""
    return PluginSpec(
        plugin.name, instance.version, settings_of(instance), plugin.target, data_digest=data
    )


class EntryReader:
    """Reads entries and gathers their mistakes."""

    def __init__(self, document: Document) -> None:
        self.mistakes: list[Mistake] = []
        self._document = document

    def tasks(self, metric: object) -> list[TaskEntry]:
        """The tasks; ``metric`` is the sweep's, or None for each task's primary one."""
        found = []
        for path, entry, label in self._labelled("tasks"):
            cls, spec = self._bind("task", path, entry, reserved={"name", "label"})
            chosen = self._metric(cls.metrics, metric, entry["name"]) if cls else None
            if spec is not None and chosen is not None:
                found.append(TaskEntry(_with_settings(label, entry, spec, cls), spec, chosen))
        return found

    def methods(self, *, searching: bool, grid: bool) -> list[MethodEntry]:
        """The methods, with the search spaces that are left after fixing what is fixed."""
        found = []
        for path, entry, label in self._labelled("methods"):
            fixed, replaced = self._parameters(path, entry, searching=searching, grid=grid)
            merged = {**entry, **fixed}
            reserved = {"name", "label", "parameters"}
            cls, spec = self._bind("method", path, merged, reserved)
            if spec is None:
                continue
            own = {} if grid or not searching else _own_spaces(cls, merged)
            space = {**own, **replaced}
            trial_0 = {name: s.nearest(spec.settings[name]) for name, s in space.items()}
            settings = {**spec.settings, **trial_0}
            spec = PluginSpec(spec.name, spec.version, settings, spec.target)
            found.append(MethodEntry(label, spec, space))
        return found

    def _entries(self, key: str) -> list[tuple[KeyPath, dict[str, Any]]]:
        raw = self._document.content.get(key)
        entries = raw if isinstance(raw, list) else []
        named = [({"name": e} if isinstance(e, str) else e) for e in entries]
        return [
            ((key, index), entry)
            for index, entry in enumerate(named)
            if isinstance(entry, dict) and isinstance(entry.get("name"), str)
        ]

    def _mistake(self, path: KeyPath, message: str) -> None:
        self.mistakes.append(self._document.mistake(path, message))

    def _bind(
        self, kind: plugins.Kind, path: KeyPath, entry: Mapping[str, Any], reserved: set[str]
    ) -> tuple[Any, PluginSpec | None]:
        """The class and the bound plugin; None for what cannot be had."""
        try:
            plugin = plugins.find_plugin(kind, entry["name"])
            cls = plugin.load()
        except BhnbenchError as error:
            self._mistake(path, str(error))
            return None, None
        settings = {str(key): value for key, value in entry.items() if key not in reserved}
        values, mistakes = check_settings(cls, settings)
        for key, message in mistakes.items():
            self._mistake((*path, key), message)
        try:
            return cls, _spec(plugin, cls, values) if not mistakes else None
        except (ValueError, DataError) as error:  # a rule of the plugin's own, or a user's file
            owner, rule = _owner(str(error), settings)
            self._mistake((*path, owner) if owner else path, rule)
            return cls, None

    def _metric(self, metrics: tuple[Metric, ...], wanted: object, task: str) -> Metric | None:
        name = wanted.get("name") if isinstance(wanted, dict) else wanted
        if not isinstance(name, str):  # none, or none that is one
            return metrics[0]
        goal = wanted.get("goal") if isinstance(wanted, dict) else None
        known = {m.name: m for m in metrics}
        if name not in known:
            hint = did_you_mean(name, known)
            self._mistake(("metric",), f"task {task} has no metric {name!r}; {hint}")
            return None
        metric = known[name]
        if goal in ("maximize", "minimize") and goal != metric.direction:
            rule = f"goal of {name} must be {metric.direction}, but got {goal!r}"
            self._mistake(("metric",), rule)
        return metric

    def _labelled(self, key: str) -> list[tuple[KeyPath, dict[str, Any], str]]:
        """The entries with their labels: where a name recurs, what was set tells them apart."""
        entries = self._entries(key)
        plain = Counter(entry.get("label") or entry["name"] for _, entry in entries)
        seen: set[str] = set()
        found = []
        for path, entry in entries:
            label = str(entry.get("label") or entry["name"])
            if plain[label] > 1 and "label" not in entry:
                given = {k: v for k, v in entry.items() if k not in ("name", "parameters")}
                shown = ", ".join(f"{k}={json.dumps(v)}" for k, v in given.items())
                label = f"{label}({shown})" if shown else label
            if label in seen:
                rule = f"labels must differ, but {label!r} stands twice; give each a `label`"
                self._mistake(path, rule)
            seen.add(label)
            found.append((path, entry, label))
        return found

    def _parameters(
        self, path: KeyPath, entry: Mapping[str, Any], *, searching: bool, grid: bool
    ) -> tuple[dict[str, Value], dict[str, Space]]:
        """Fixed values and search spaces under ``parameters``."""
        fixed: dict[str, Value] = {}
        spaces: dict[str, Space] = {}
        raw = entry.get("parameters") or {}
        fields = self._fields(entry["name"])
        if not isinstance(raw, dict) or fields is None:
            return fixed, spaces
        for key, value in raw.items():
            try:
                space, constant = _check_parameter(str(key), value, entry, fields, grid=grid)
            except ValueError as error:
                self._mistake((*path, "parameters", str(key)), str(error))
                continue
            if space is None:
                fixed[key] = constant
            elif searching:
                spaces[key] = space
            else:
                rule = "a search space needs a `search` section; add one, or fix the value"
                self._mistake((*path, "parameters", str(key)), rule)
        return fixed, spaces

    def _fields(self, name: str) -> Mapping[str, Field] | None:
        try:
            return fields_of(plugins.load_method(name))
        except BhnbenchError:
            return None  # said once, by _bind


def _with_settings(label: str, entry: Mapping[str, Any], spec: PluginSpec, cls: type) -> str:
    """A task's own name, with the settings that make it another task than it is by default."""
    if label != spec.name or "label" in entry:
        return label
    fields = fields_of(cls).values()
    changed = [f.name for f in fields if f.name in entry and spec.settings[f.name] != f.default]
    shown = ", ".join(f"{name}={spec.settings[name]}" for name in changed)
    return f"{label}({shown})" if shown else label


def _own_spaces(cls: type, entry: Mapping[str, Any]) -> dict[str, Space]:
    fields = fields_of(cls).values()
    return {f.name: f.search for f in fields if f.search is not None and f.name not in entry}


def _check_parameter(
    key: str,
    value: object,
    entry: Mapping[str, Any],
    fields: Mapping[str, Field],
    *,
    grid: bool,
) -> tuple[Space | None, Value]:
    if key not in fields:
        raise ValueError(f"unknown field; {did_you_mean(key, fields)}")
    if key in entry:
        raise ValueError("is fixed beside `parameters` too; remove one of the two")
    space, constant = read_parameter(value)
    if space is None:
        return None, fields[key].check(constant)
    if isinstance(space, Choice):
        values = [fields[key].check(v) for v in space.values]
        if len({(type(v), v) for v in values}) < len(values):
            raise ValueError(f"values must differ, but got {list(space.values)}")
        return Choice(*values), None
    if grid:
        raise ValueError("sampler grid needs `values`, a list; got a range")
    implied = isinstance(value, dict) and "distribution" not in value
    return _fit_range(fields[key], space, implied=implied), None


def _fit_range(field: Field, space: Float | Int, *, implied: bool) -> Float | Int:
    """The range in the field's own kind of number: whole bounds serve both kinds."""
    field.check(space.low)
    field.check(space.high)
    whole = "int" in field.type_name.split(" | ") and "float" not in field.type_name.split(" | ")
    if isinstance(space, Float) and whole:
        if not implied:
            raise ValueError("is a whole number; use int_uniform or int_log_uniform_values")
        return Int(int(space.low), int(space.high), space.log)  # check() admits whole ones only
    if isinstance(space, Int) and not whole:
        if not implied:
            raise ValueError("is a real number; use uniform or log_uniform_values")
        return Float(float(space.low), float(space.high), space.log)
    return space
