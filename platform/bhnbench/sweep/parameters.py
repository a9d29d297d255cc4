"""Search spaces as written in a sweep file: W&B's names, and Optuna's for the same things."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from bhnbench.errors import did_you_mean
from bhnbench.space import Choice, Float, Int, Space, Value
from bhnbench.space import Field as PluginField

DISTRIBUTIONS = (
    "constant", "categorical", "uniform", "log_uniform_values", "int_uniform",
    "int_log_uniform_values",
)  # fmt: skip
_ALIASES = {"low": "min", "high": "max", "choices": "values"}


class ParameterDocument(BaseModel):
    """One entry under ``parameters``: a search space, or a fixed value."""

    model_config = ConfigDict(extra="forbid")

    distribution: str | None = Field(None, json_schema_extra={"enum": [*DISTRIBUTIONS, None]})
    min: int | float | None = Field(None, description="lowest value")
    max: int | float | None = Field(None, description="highest value, included")
    low: int | float | None = Field(None, description="Optuna's name for min")
    high: int | float | None = Field(None, description="Optuna's name for max")
    log: bool | None = Field(None, description="Optuna's way to ask for a log scale")
    value: Any = Field(None, description="a fixed value")
    values: list[Any] | None = Field(None, description="the values to choose from")
    choices: list[Any] | None = Field(None, description="Optuna's name for values")


def check_parameter(
    key: str,
    value: object,
    entry: Mapping[str, Any],
    fields: Mapping[str, PluginField],
    *,
    grid: bool,
) -> tuple[Space | None, Value]:
    """The search space of a hyperparameter, or None and its fixed value.

    Raises:
        ValueError: it breaks rules, or has values that do; one line each.
    """
    if key not in fields:
        raise ValueError(f"unknown field; {did_you_mean(key, fields)}")
    if key in entry:
        raise ValueError("is fixed beside `parameters` too; remove one of the two")
    space, constant = read_parameter(value)
    if space is None:
        return None, fields[key].check(constant)
    values = _checked(fields[key], outermost(space))
    if isinstance(space, Choice):
        if len({(type(v), v) for v in values}) < len(values):
            raise ValueError(f"values must differ, but got {list(space.values)}")
        return Choice(*values), None
    if grid:
        raise ValueError("sampler grid needs `values`, a list; got a range")
    implied = isinstance(value, dict) and "distribution" not in value
    return _fit_range(fields[key], space, implied=implied), None


def outermost(space: Space) -> tuple[Value, ...]:
    """The values of a choice, the ends of a range."""
    return space.values if isinstance(space, Choice) else (space.low, space.high)


def _checked(field: PluginField, values: Iterable[object]) -> list[Value]:
    """The values in the field's type; every one that is wrong is told."""
    checked, mistakes = [], []
    for value in values:
        try:
            checked.append(field.check(value))
        except ValueError as error:
            mistakes.append(str(error))
    if mistakes:
        raise ValueError("\n".join(mistakes))
    return checked


def _fit_range(field: PluginField, space: Float | Int, *, implied: bool) -> Float | Int:
    """The range in the field's own kind of number: whole bounds serve both kinds."""
    kinds = field.type_name.split(" | ")
    if not {"int", "float"} & set(kinds):
        raise ValueError("is text; use `values`, a list, but no range")
    whole = "float" not in kinds
    if isinstance(space, Float) and whole:
        if not implied:
            raise ValueError("is a whole number; use int_uniform or int_log_uniform_values")
        return Int(int(space.low), int(space.high), space.log)  # only whole ones were let in
    if isinstance(space, Int) and not whole:
        if not implied:
            raise ValueError("is a real number; use uniform or log_uniform_values")
        return Float(float(space.low), float(space.high), space.log)
    return space


def read_parameter(entry: object) -> tuple[Space | None, Value]:
    """The search space of one parameter, or None and its fixed value.

    Raises:
        ValueError: the entry breaks a rule.
    """
    if not isinstance(entry, dict):
        raise ValueError(
            f"must be a mapping such as {{min: 1e-4, max: 1e-2}}, but got {entry!r}; "
            "a fixed value stands beside `parameters`, not in it"
        )
    given = {_ALIASES.get(str(key), str(key)): value for key, value in entry.items()}
    unknown = set(given) - {"distribution", "min", "max", "log", "value", "values"}
    if unknown:
        raise ValueError(
            f"unknown key {min(unknown)!r}; known: distribution, min, max, log, value, values"
        )
    return _read(given, _distribution(given))


def _distribution(given: dict[str, Any]) -> str:
    name = given.pop("distribution", None)
    if name == "log_uniform":
        raise ValueError(
            "`log_uniform` is ambiguous (bounds as exponents, or as values?); "
            "use `log_uniform_values` with min and max as values"
        )
    if name is not None and name not in DISTRIBUTIONS:
        raise ValueError(f"unknown distribution {name!r}; known: {', '.join(DISTRIBUTIONS)}")
    if name is None:
        name = _implied(given)
    elif given.get("log") is not None and given["log"] is not name.endswith("log_uniform_values"):
        raise ValueError(f"log: {given['log']} contradicts distribution: {name}; drop one of them")
    return str(name)


def _implied(given: dict[str, Any]) -> str:
    if "value" in given:
        return "constant"
    if "values" in given:
        return "categorical"
    whole = all(type(given.get(key)) is int for key in ("min", "max"))
    stem = "log_uniform_values" if given.get("log") else "uniform"
    return f"int_{stem}" if whole else stem


def _read(given: dict[str, Any], distribution: str) -> tuple[Space | None, Value]:
    needed = {"constant": {"value"}, "categorical": {"values"}}.get(distribution, {"min", "max"})
    found = {key for key, value in given.items() if value is not None or key == "value"} - {"log"}
    if found != needed:
        got = ", ".join(sorted(found)) or "nothing"
        raise ValueError(f"{distribution} needs {' and '.join(sorted(needed))}, but got {got}")
    if distribution == "constant":
        return None, given["value"]
    if distribution == "categorical":
        return _choice(given["values"]), None
    low, high = (_bound(name, given[name], distribution) for name in ("min", "max"))
    log = distribution.endswith("log_uniform_values")
    if distribution.startswith("int"):
        return Int(int(low), int(high), log), None
    return Float(low, high, log), None


def _choice(values: object) -> Choice:
    if not isinstance(values, list) or not values:
        raise ValueError(f"values must be a list of at least one value, but got {values!r}")
    return Choice(*values)


def _bound(name: str, value: object, distribution: str) -> float:
    whole = distribution.startswith("int")
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise ValueError(
            f"{name} must be {'a whole ' if whole else 'a '}number, but got {value!r}"
        )
    return value
