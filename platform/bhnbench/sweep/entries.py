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
from bhnbench.space import Field, Space, Value, fields_of, files_of, settings_of
from bhnbench.specs import PluginSpec
from bhnbench.sweep.parameters import check_parameter, outermost
from bhnbench.sweep.yaml_file import Document, KeyPath, Mistake
from bhnbench.yaml_text import in_yaml

NOT_SETTINGS = ("name", "label", "resources")  # keys of an entry that no plugin hears of


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
        plugin.name,
        instance.version,
        settings_of(instance),
        plugin.target,
        data_digest=data,
        files=files_of(instance),
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
            plugin = self._load("task", path, entry["name"])
            if plugin is None:
                continue
            spec = self._bind(plugin, path, entry, _settings(entry))
            cls: Any = plugin.load()
            chosen = self._metric(cls.metrics, metric, entry["name"])
            if spec is not None and chosen is not None:
                found.append(TaskEntry(_with_settings(label, entry, spec, cls), spec, chosen))
        return found

    def methods(self, *, searching: bool, grid: bool) -> list[MethodEntry]:
        """The methods, with the search spaces that are left after fixing what is fixed."""
        found = []
        for path, entry, label in self._labelled("methods"):
            plugin = self._load("method", path, entry["name"])
            if plugin is None:
                continue
            fields = fields_of(plugin.load())
            fixed, replaced = self._parameters(path, entry, fields, searching=searching, grid=grid)
            given = _settings(entry, "parameters") | fixed
            own = {} if grid or not searching else _own_spaces(fields, given)
            space = {**own, **replaced}
            trial_0 = {name: s.nearest(fields[name].default) for name, s in space.items()}
            spec = self._bind(plugin, path, entry, given | trial_0)
            self._try_values(plugin, path, given | trial_0, replaced)
            if spec is not None:
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

    def _load(self, kind: plugins.Kind, path: KeyPath, name: str) -> plugins.Plugin | None:
        """The plugin, imported; None for what cannot be had."""
        try:
            plugin = plugins.find_plugin(kind, name)
            plugin.load()
        except BhnbenchError as error:
            self._mistake(path, str(error))
            return None
        return plugin

    def _bind(
        self,
        plugin: plugins.Plugin,
        path: KeyPath,
        entry: Mapping[str, Any],
        settings: Mapping[str, object],
    ) -> PluginSpec | None:
        """The plugin with its settings, or None."""
        cls = plugin.load()
        values, mistakes = check_settings(cls, settings)
        for key, message in mistakes.items():
            self._mistake(_place(path, entry, key), message)
        try:
            return None if mistakes else _spec(plugin, cls, values)
        except (ValueError, DataError) as error:  # a rule of the plugin's own, or a user's file
            owner, rule = _owner(str(error), settings)
            self._mistake(_place(path, entry, owner) if owner else path, rule)
            return None

    def _try_values(
        self,
        plugin: plugins.Plugin,
        path: KeyPath,
        settings: Mapping[str, object],
        spaces: Mapping[str, Space],
    ) -> None:
        """Hold each value to be tried against the method's own rules, all else as in trial 0."""
        cls = plugin.load()
        values, mistakes = check_settings(cls, settings)
        if mistakes:
            return
        told = _broken_rule(cls, values)
        for key, value in ((key, v) for key, space in spaces.items() for v in outermost(space)):
            broken = _broken_rule(cls, {**values, key: value})
            if broken and broken != told:
                owner, rule = _owner(broken, {key})
                message = rule if owner else f"with {in_yaml(value)}, {rule}"
                self._mistake((*path, "parameters", key), message)

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
                given = _settings(entry, "parameters")
                shown = ", ".join(f"{k}={json.dumps(v)}" for k, v in given.items())
                label = f"{label}({shown})" if shown else label
            if label in seen:
                rule = f"labels must differ, but {label!r} stands twice; give each a `label`"
                self._mistake(path, rule)
            seen.add(label)
            found.append((path, entry, label))
        return found

    def _parameters(
        self,
        path: KeyPath,
        entry: Mapping[str, Any],
        fields: Mapping[str, Field],
        *,
        searching: bool,
        grid: bool,
    ) -> tuple[dict[str, Value], dict[str, Space]]:
        """Fixed values and search spaces under ``parameters``."""
        fixed: dict[str, Value] = {}
        spaces: dict[str, Space] = {}
        raw = entry.get("parameters") or {}
        for key, value in raw.items() if isinstance(raw, dict) else ():
            try:
                space, constant = check_parameter(str(key), value, entry, fields, grid=grid)
                if space is not None and not searching:
                    raise ValueError(
                        "a search space needs a `search` section; add one, or fix the value"
                    )
            except ValueError as error:
                for line in str(error).splitlines():
                    self._mistake((*path, "parameters", str(key)), line)
                continue
            if space is None:
                fixed[key] = constant
            else:
                spaces[key] = space
        return fixed, spaces


def _settings(entry: Mapping[str, Any], *others: str) -> dict[str, Any]:
    """What an entry sets, less ``others``."""
    return {str(k): v for k, v in entry.items() if k not in (*NOT_SETTINGS, *others)}


def _place(path: KeyPath, entry: Mapping[str, Any], key: str) -> KeyPath:
    """Where a setting stands: beside ``parameters``, or in it."""
    inside = entry.get("parameters")
    is_inside = isinstance(inside, dict) and key in inside and key not in entry
    return (*path, "parameters", key) if is_inside else (*path, key)


def _broken_rule(cls: type, values: Mapping[str, Value]) -> str:
    """The rule of a plugin's own that these values break, if any."""
    try:
        cls(**values)
    except (ValueError, DataError) as error:
        return str(error)
    return ""


def _with_settings(label: str, entry: Mapping[str, Any], spec: PluginSpec, cls: type) -> str:
    """A task's own name, with the settings that make it another task than it is by default."""
    if label != spec.name or "label" in entry:
        return label
    fields = fields_of(cls).values()
    changed = [f.name for f in fields if f.name in entry and spec.settings[f.name] != f.default]
    shown = ", ".join(f"{name}={spec.settings[name]}" for name in changed)
    return f"{label}({shown})" if shown else label


def _own_spaces(fields: Mapping[str, Field], given: Collection[str]) -> dict[str, Space]:
    named = fields.items()
    return {k: f.search for k, f in named if f.search is not None and k not in given}
