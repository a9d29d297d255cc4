"""The shape of a sweep file, checked; what pydantic finds is said in our words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from bhnbench.errors import did_you_mean
from bhnbench.sweep import schema
from bhnbench.sweep.yaml_file import Document, KeyPath, Mistake
from bhnbench.yaml_text import in_yaml

MODELS: Mapping[KeyPath, type[BaseModel]] = {
    (): schema.SweepDocument,
    ("search",): schema.SearchDocument,
    ("search", "early_terminate"): schema.EarlyTerminateDocument,
    ("evaluate",): schema.EvaluateDocument,
    ("resources",): schema.ResourcesDocument,
    ("retries",): schema.RetriesDocument,
    ("metric",): schema.MetricDocument,
}
RULES = {
    "string_type": "must be text",
    "string_unicode": "must be text of whole characters",
    "string_too_long": "must have {max_length} characters at most",
    "string_pattern_mismatch": "must be letters, digits and . _ -, a letter or digit first",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than_equal": "must be at most {le:g}",
    "list_type": "must be a list",
    "too_short": "must have at least one entry",
    "dict_type": "must be a mapping",
    "invalid_key": "must be text",
    "literal_error": "must be {expected}",
    "value_error": "{error}",  # our own words
}


def validate(document: Document) -> tuple[schema.SweepDocument | None, list[Mistake]]:
    """The document in its model, or what is wrong with its shape."""
    try:
        return schema.SweepDocument.model_validate(document.content), []
    except ValidationError as error:
        return None, [_describe(document, details) for details in error.errors()]


def _describe(document: Document, error: ErrorDetails) -> Mistake:
    path: KeyPath = tuple(p for p in error["loc"] if not str(p).startswith("function-"))
    kind, got = error["type"], error["input"]
    if kind == "extra_forbidden":
        hint = did_you_mean(str(path[-1]), MODELS[_in_model(path[:-1])].model_fields)
        return document.mistake(path, f"unknown key; {hint}")
    if kind == "missing":
        rule = f"{path[-1]!r} is missing{_hint(path[:-1], got)}"
        return document.mistake(path[:-1], rule)
    if path == ("storage",) and kind == "value_error":
        return document.mistake(path, _rule(path, error))  # it may hold a password
    return document.mistake(path, f"{_rule(path, error)}, but got {_short(got)}")


def _rule(path: KeyPath, error: ErrorDetails) -> str:
    inner = _in_model(path)
    if error["type"] == "model_type" and inner not in MODELS:
        return "must be a name, or a mapping with name"
    if error["type"] == "model_type":
        return f"must be a mapping with {_listed(list(MODELS[inner].model_fields))}"
    return RULES.get(error["type"], error["msg"]).format(**error.get("ctx", {}))


def _in_model(path: KeyPath) -> KeyPath:
    """What an entry asks for itself has the form of what the sweep asks for."""
    return path[2:] if path[:1] in (("tasks",), ("methods",)) and len(path) > 2 else path


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _hint(path: KeyPath, entry: object) -> str:
    """How to write ``- mc_dropout: {rate: 0.2}``."""
    if path[:1] not in (("tasks",), ("methods",)) or not isinstance(entry, dict) or not entry:
        return ""
    (name, settings), *others = entry.items()
    if not isinstance(settings, dict | None):
        return ""
    return f"; write {_flow({'name': name, **(settings or {}), **dict(others)})}"


def _flow(content: Mapping[Any, Any]) -> str:
    """A mapping on one line."""
    text = yaml.safe_dump(
        content, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10_000
    )
    return text.strip()


def _short(value: object) -> str:
    text = in_yaml(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
