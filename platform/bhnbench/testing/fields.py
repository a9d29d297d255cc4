"""Laws of declared fields, the same for methods and tasks."""

from __future__ import annotations

import dataclasses
import json

from bhnbench.plugins import Kind, find_plugin
from bhnbench.space import Choice, Field, Float, Int, Space, Value, fields_of, settings_of


def class_of(kind: Kind, plugin: object) -> type:
    """The class of a plugin given by its installed name, as a class or as an instance."""
    if isinstance(plugin, str):
        return find_plugin(kind, plugin).load()
    return plugin if isinstance(plugin, type) else type(plugin)


def given_settings(plugin: object) -> dict[str, Value]:
    """The settings that an instance brings along."""
    return {} if isinstance(plugin, str | type) else settings_of(plugin)


def check_declaration(cls: type) -> None:
    """The class is a frozen dataclass whose fields can be explained, checked and searched."""
    frozen = dataclasses.is_dataclass(cls) and cls.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert frozen, (
        f"{cls.__name__} must be a dataclass with frozen=True: equal settings, equal run"
    )
    version = getattr(cls, "version", None)
    assert isinstance(version, str), f"{cls.__name__}.version must be text, but is {version!r}"
    mistakes = [line for field in fields_of(cls).values() for line in _mistakes(field)]
    assert not mistakes, f"{cls.__name__}: " + "; ".join(mistakes)


def _mistakes(field: Field) -> list[str]:
    """What is wrong with a field, one line each."""
    default: object = field.default
    if default is dataclasses.MISSING:
        return [f"{field.name} must have a default: trial 0 of every study is the defaults"]
    found = [] if field.doc else [f"{field.name} must say what it means, in its doc"]
    try:
        field.check(field.default)
    except ValueError as error:
        found.append(f"{field.name}: its default {error}")
    if field.search is not None and not field.search.contains(field.default):
        rule = f"must lie in the search space {field.search}, but is {field.default}"
        found.append(f"{field.name}: its default {rule}; trial 0 of every study is the defaults")
    for value in ends_of(field.search):
        try:
            field.check(value)
        except ValueError as error:
            found.append(f"{field.name}: search {field.search} must lie within valid, {error}")
    return found


def ends_of(space: Space | None) -> tuple[Value, ...]:
    """The values of a choice, or both ends of a range."""
    if space is None:
        return ()
    return space.values if isinstance(space, Choice) else (space.low, space.high)


def check_survives_json(plugin: object) -> None:
    """A configuration comes back from JSON as it was: so it reaches ledger and workers."""
    settings = settings_of(plugin)
    back = json.loads(json.dumps(settings, allow_nan=False))
    assert type(plugin)(**back) == plugin, (
        f"{type(plugin).__name__} must be equal after a trip through JSON, but {settings} "
        f"came back as {back}"
    )


def values_to_compare(field: Field) -> tuple[Value, ...]:
    """Values that must not all lead to one result; empty where none are known but the default."""
    space = field.search or (field.valid if isinstance(field.valid, Choice) else None)
    if space is not None:
        return ends_of(space)
    default = field.default
    if isinstance(default, bool):
        return (False, True)
    if default is None and isinstance(field.valid, Float | Int):
        return (None, field.valid.nearest(1))
    if not isinstance(default, int | float):
        return ()
    others = [2 * default or type(default)(1), type(default)(default / 2)]
    allowed = [other if field.valid is None else field.valid.nearest(other) for other in others]
    return (default, *[value for value in allowed if value != default][:1])
