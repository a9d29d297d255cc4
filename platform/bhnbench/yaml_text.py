"""Values as people write them in YAML."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

_NAME = re.compile(r"[A-Za-z_][\w./-]*")
_WORDS = {"true", "false", "null", "nan", "inf", "infinity"}  # not read as text


def in_yaml(value: object) -> str:
    """A value in messages: ``null`` and ``true``, and text in quotes."""
    return _word(value) if value is None or isinstance(value, bool) else repr(value)


def in_short(value: bool | float | str | None) -> str:
    """A value in lists; text in quotes only where it is more than a word."""
    is_word = isinstance(value, str) and re.fullmatch(r"[\w./-]+", value)
    return str(value) if is_word else _quote(value)


def as_text(value: object) -> str | None:
    """What stands in a text field for a value that YAML does not read as text.

    ``{rate: 0.2, drop: maps}`` is "rate: 0.2, drop: maps", ``[0.1, 0.5]`` is "0.1, 0.5" and 0.1
    is "0.1".

    Returns:
        None where the text could be read in another way, or the value is null.
    """
    if isinstance(value, dict):
        return _join(_pair(key, item) for key, item in value.items())
    if isinstance(value, list):
        return _join(_item(item) for item in value)
    return _word(value) if isinstance(value, bool | int | float) else None


def _quote(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _join(parts: Iterable[str | None]) -> str | None:
    known: list[str] = []
    for part in parts:
        if part is None:
            return None
        known.append(part)
    return ", ".join(known)


def _pair(key: object, value: object) -> str | None:
    if not (isinstance(key, str) and _is_plain(key)):
        return None
    if isinstance(value, dict | list):
        inner = as_text(value)
        return None if inner is None else f"{key}: {_quote(inner)}"
    if isinstance(value, str) and not _is_plain(value):
        return f"{key}: {_quote(value)}"
    return f"{key}: {_word(value)}"


def _item(value: object) -> str | None:
    if isinstance(value, str):
        return None if "," in value else value
    return None if isinstance(value, dict | list) else _word(value)


def _is_plain(text: str) -> bool:
    return bool(_NAME.fullmatch(text)) and text.lower() not in _WORDS


def _word(value: object) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
