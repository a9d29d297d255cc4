"""Hyperparameters and settings, declared once: type, default, valid values, search space, meaning.

::

    @dataclass(frozen=True, kw_only=True)
    class MyMethod(Method):
        rate: float = hyperparameter(0.5, "dropout probability", valid=Float(0, 0.99),
                                     search=Float(0.1, 0.6))
"""

from __future__ import annotations

import dataclasses
import math
import sys
import types
import typing
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeGuard

from bhnbench.yaml_text import as_text, in_yaml

Value = bool | int | float | str | None


@dataclass(frozen=True)
class Float:
    """Real numbers in [low, high]; ``log`` spreads the search evenly over orders of magnitude."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        _check_range(self.low, self.high, self.log)

    def contains(self, value: object) -> bool:
        """Whether ``value`` is a number within the bounds."""
        return _is_number(value) and self.low <= value <= self.high

    def nearest(self, value: Value) -> Value:
        """The member closest to a number; of no number, the lowest."""
        return min(max(float(value), self.low), self.high) if _is_number(value) else self.low

    def __str__(self) -> str:
        return f"[{self.low:g}, {self.high:g}]" + (" log" if self.log else "")


@dataclass(frozen=True)
class Int:
    """Whole numbers from low to high, both included."""

    low: int
    high: int
    log: bool = False

    def __post_init__(self) -> None:
        _check_range(self.low, self.high, self.log)

    def contains(self, value: object) -> bool:
        """Whether ``value`` is a whole number within the bounds."""
        return (
            isinstance(value, int)
            and not isinstance(value, bool)
            and (self.low <= value <= self.high)
        )

    def nearest(self, value: Value) -> Value:
        """The member closest to a number; of no number, the lowest."""
        return min(max(round(value), self.low), self.high) if _is_number(value) else self.low

    def __str__(self) -> str:
        return f"{self.low} ... {self.high}" + (" log" if self.log else "")


@dataclass(frozen=True)
class Choice:
    """One of the listed values."""

    values: tuple[Value, ...]

    def __init__(self, *values: Value) -> None:
        if not values:
            raise ValueError("at least one value must be listed, but got none")
        object.__setattr__(self, "values", values)

    def contains(self, value: object) -> bool:
        """Whether ``value`` is listed."""
        return any(type(value) is type(v) and value == v for v in self.values)

    def nearest(self, value: Value) -> Value:
        """The value itself where it is listed, the closest of numbers, else the first."""
        if self.contains(value):
            return value
        numbers = [v for v in self.values if _is_number(v)]
        if not (_is_number(value) and numbers):
            return self.values[0]
        return min(numbers, key=lambda v: abs(v - value))

    def __str__(self) -> str:
        return " | ".join("null" if v is None else str(v) for v in self.values)


@dataclass(frozen=True)
class ChoiceOrFile(Choice):
    """One of the listed values, or the path of a file of the user's, known by its suffix."""

    suffix: str

    def __init__(self, *values: Value, suffix: str) -> None:
        super().__init__(*values)
        object.__setattr__(self, "suffix", suffix)

    def contains(self, value: object) -> bool:
        """Whether ``value`` is listed, or ends like a file of that kind."""
        return super().contains(value) or self.is_file(value)

    def is_file(self, value: object) -> TypeGuard[str]:
        """Whether ``value`` is the path of a file; nothing is looked up."""
        return isinstance(value, str) and value.endswith(self.suffix) and value != self.suffix

    def __str__(self) -> str:
        return f"{super().__str__()} | FILE{self.suffix}"


Space = Float | Int | Choice


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_range(low: float, high: float, log: bool) -> None:
    if not low < high:
        raise ValueError(f"low < high must hold, but got low={low:g}, high={high:g}")
    if log and not low > 0:
        raise ValueError(f"low > 0 must hold on a log scale, but got low={low:g}")


@dataclass(frozen=True)
class Field:
    """One hyperparameter or setting, as declared."""

    name: str
    type: Any
    default: Value
    doc: str
    valid: Space | None
    search: Space | None

    @property
    def type_name(self) -> str:
        """The type as people write it."""
        return " | ".join("null" if t is type(None) else t.__name__ for t in _types(self.type))

    def check(self, value: object) -> Value:
        """``value`` in the declared type.

        Raises:
            ValueError: it is of another type, or not a valid value.
        """
        converted = _convert(value, _types(self.type))
        if converted is _NO_MATCH:
            raise ValueError(f"must be {self._kind(value)}, but got {in_yaml(value)}")
        if self.valid is not None and converted is not None and not self.valid.contains(converted):
            got = converted if isinstance(converted, int) else value  # 0, also where 0.0 is given
            raise ValueError(f"must be {_rule(self.valid)}, but got {in_yaml(got)}")
        return typing.cast("Value", converted)

    def _kind(self, got: object) -> str:
        """In words, what a value must be."""
        types_ = _types(self.type)
        if float in types_ and isinstance(got, float):
            return "a finite number"
        kinds = _KINDS | ({str: "text, in quotes,"} if isinstance(got, dict | list) else {})
        return " or ".join(kinds.get(t, t.__name__) for t in types_).removesuffix(",")


_NO_MATCH = object()
_KINDS = {
    bool: "true or false", int: "a whole number", float: "a number", str: "text",
    type(None): "null",
}  # fmt: skip


def _rule(space: Space) -> str:
    if not isinstance(space, Choice):
        return f"in {space}"
    names = ", ".join("null" if v is None else str(v) for v in space.values)
    file = f" or a file *{space.suffix}" if isinstance(space, ChoiceOrFile) else ""
    return f"one of {names}{file}"


def _types(annotation: Any) -> tuple[type, ...]:  # noqa: ANN401 - an annotation is anything
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        return typing.get_args(annotation)
    return (annotation,)


def _convert(value: object, allowed: tuple[type, ...]) -> object:
    if type(value) in allowed:
        return _NO_MATCH if isinstance(value, float) and not math.isfinite(value) else value
    if float in allowed and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if int in allowed and isinstance(value, float) and value.is_integer():
        return int(value)  # 1e3 in YAML is a float
    text = as_text(value) if str in allowed else None
    return _NO_MATCH if text is None else text


def hyperparameter(
    default: Value, doc: str, *, valid: Space | None = None, search: Space | None = None
) -> Any:  # noqa: ANN401 - stands for a value of the field's own type, as dataclasses.field does
    """A field that may be searched over; ``search`` must lie within ``valid``."""
    metadata = {"doc": doc, "valid": valid, "search": search}
    return dataclasses.field(default=default, metadata=metadata)


def setting(default: Value, doc: str, *, valid: Space | None = None) -> Any:  # noqa: ANN401
    """A field that is never searched over: a task's settings."""
    return hyperparameter(default, doc, valid=valid)


@cache
def fields_of(plugin: type) -> dict[str, Field]:
    """The declared fields of a method or task class, by name."""
    hints = _field_types(plugin)
    return {
        f.name: Field(
            name=f.name,
            type=hints[f.name],
            default=typing.cast("Value", f.default),
            doc=f.metadata.get("doc", ""),
            valid=f.metadata.get("valid"),
            search=f.metadata.get("search"),
        )
        for f in dataclasses.fields(plugin)
    }


def _field_types(plugin: type) -> dict[str, Any]:
    """Types of the fields alone; other annotations may name what only type checkers import."""
    names = {f.name for f in dataclasses.fields(plugin)}
    found: dict[str, Any] = {}
    for cls in reversed(plugin.__mro__):
        annotations = vars(cls).get("__annotations__", {})
        own = {name: hint for name, hint in annotations.items() if name in names}
        holder = types.SimpleNamespace(__annotations__=own)
        found |= typing.get_type_hints(holder, vars(sys.modules[cls.__module__]))
    return found


def check_settings(plugin: object) -> None:
    """Check a bound method or task as a sweep file's settings are; call it in ``__post_init__``.

    Raises:
        ValueError: values of another type, or not valid; all of them, a sentence each.
    """
    mistakes = []
    for name, field in fields_of(typing.cast("type", type(plugin))).items():
        try:
            object.__setattr__(plugin, name, field.check(getattr(plugin, name)))  # 1 as 1.0
        except ValueError as error:
            mistakes.append(f"{name}: {error}")
    if mistakes:
        raise ValueError("; ".join(mistakes))


def settings_of(plugin: object) -> dict[str, Value]:
    """The values of a method's or task's fields, by name: its configuration."""
    return {
        f.name: getattr(plugin, f.name) for f in dataclasses.fields(typing.cast("Any", plugin))
    }


def files_of(plugin: object) -> list[str]:
    """Names of the settings that are paths of a user's files."""
    places = {f.name: f.valid for f in fields_of(typing.cast("type", type(plugin))).values()}
    return [
        name
        for name, valid in places.items()
        if isinstance(valid, ChoiceOrFile) and valid.is_file(getattr(plugin, name))
    ]
