"""What may be said about an MLflow server in public: its address and its errors, no secrets."""

from __future__ import annotations

import re
from urllib.parse import quote, quote_plus

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

LATER = "a sweep runs without, and `bhnbench sync` sends it all later"
LENGTH = 200  # of a reason: one line of a terminal or two


def parse(uri: str) -> URL | None:
    """The parts of an address, or None where it has none (``databricks``, a folder)."""
    try:
        return make_url(uri)
    except (ArgumentError, ValueError):
        return None


def shown(uri: str) -> str:
    """The address without password and query, which may hold secrets as well."""
    url = parse(uri)
    if url is None:
        return uri.partition(":")[0]
    return url.set(query={}).render_as_string(hide_password=True)


def reason(error: BaseException, uri: str) -> str:
    """First line of an error's message, without the secrets of ``uri``."""
    text = str(getattr(error, "orig", None) or error).strip().replace(uri, shown(uri))
    url = parse(uri)
    for secret in _secrets(url) if url else ():
        text = text.replace(secret, "***")
    text = re.sub(r"//[^/@\s]*:[^/@\s]*@", "//***@", text)
    line = text.partition("\n")[0] or type(error).__name__
    return line if len(line) <= LENGTH else f"{line[: LENGTH - 3]}..."


def _secrets(url: URL) -> list[str]:
    values = [str(url.password)] if url.password else []
    values += [v for value in url.query.values() for v in _as_tuple(value) if len(v) > 3]
    spellings = {spelling for v in values for spelling in (v, quote(v, safe=""), quote_plus(v))}
    return sorted(spellings, key=len, reverse=True)


def _as_tuple(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value
