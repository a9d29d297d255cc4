"""YAML as people expect it: no duplicate keys, ``1e-5`` a number, every line known."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from bhnbench.errors import InvalidSweepError

KeyPath = tuple[str | int, ...]


class Mistake(NamedTuple):
    """What is wrong, and where."""

    line: int  # 0: on the command line
    text: str


@dataclass(frozen=True)
class Document:
    """The content of a YAML file and where each part of it stands."""

    source: str
    content: Any
    lines: dict[KeyPath, int]  # 1-based
    overrides: dict[KeyPath, str] = field(default_factory=dict)  # what --set put where

    def mistake(self, path: KeyPath, message: str) -> Mistake:
        """One line that says where the mistake is and what it is."""
        prefixes = [path[:n] for n in range(len(path), -1, -1)]
        overridden = next((prefix for prefix in prefixes if prefix in self.overrides), None)
        if overridden is not None:
            line, where = 0, f"--set {_without_secrets(self.overrides[overridden])}"
            path = path[len(overridden) :]
        else:
            line = next(self.lines[p] for p in prefixes if p in self.lines)
            where = f"{self.source}:{line}"
        inside = f"{format_path(path)}: " if path else ""
        return Mistake(line, f"{where}: {inside}{message}")


def _without_secrets(override: str) -> str:
    """What was given, less an address that holds more than a path."""
    return re.sub(r"://\S*[@?#]\S*", "://...", override)


def format_path(path: KeyPath) -> str:
    """``("methods", 1, "rate")`` as ``methods[1].rate``."""
    parts = [f"[{p}]" if isinstance(p, int) else f".{p}" for p in path]
    return "".join(parts).removeprefix(".")


class _Loader(yaml.SafeLoader):
    """Safe loader with YAML 1.2 numbers and words (``no`` is text, ``1e-5`` is not, dates are)."""


_REPLACED = (":float", ":bool", ":timestamp")
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(_REPLACED)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:(?:\d[\d_]*)?\.\d[\d_]*(?:[eE][-+]?\d+)?|\d[\d_]*\.(?:[eE][-+]?\d+)?"
        r"|\d[\d_]*[eE][-+]?\d+|\.(?:inf|Inf|INF))$|^\.(?:nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


def parse_value(text: str) -> Any:  # noqa: ANN401 - any YAML value
    """One YAML value, as given on the command line; "a: 1, b: 2" is a mapping too.

    Raises:
        ValueError: it is not YAML, or has a key twice.
    """
    for attempt in (text, f"{{{text}}}"):
        try:
            content, _, mistakes = _load(attempt, "")
        except yaml.YAMLError:
            continue
        if mistakes:
            raise ValueError("a key must stand once, and an anchor must not contain itself")
        return content
    raise ValueError("the value is not valid YAML")


def read_document(path: Path) -> Document:
    """Read a YAML file.

    Raises:
        InvalidSweepError: it is missing, is not YAML, or has a key twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InvalidSweepError([f"{path}: no such file"]) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSweepError([f"{path}: cannot be read: {error}"]) from error
    try:
        content, lines, mistakes = _load(text, str(path))
    except yaml.YAMLError as error:
        raise InvalidSweepError([_describe(error, str(path))]) from error
    if mistakes:
        raise InvalidSweepError(mistakes)
    return Document(str(path), content, lines)


def _load(text: str, source: str) -> tuple[Any, dict[KeyPath, int], list[str]]:
    """The content, its lines, and what is wrong with its keys; where that is, no content."""
    loader = _Loader(text)
    node = loader.get_single_node()
    lines: dict[KeyPath, int] = {(): 1}
    mistakes: list[str] = []
    _walk(node, (), lines, mistakes, source, ())
    content = None if node is None or mistakes else loader.construct_document(node)
    return content, lines, mistakes


def _describe(error: yaml.YAMLError, source: str) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f"{source}:{mark.line + 1}" if mark else source
    return f"{where}: is not valid YAML: {getattr(error, 'problem', None) or error}"


def _walk(
    node: yaml.Node | None,
    path: KeyPath,
    lines: dict[KeyPath, int],
    mistakes: list[str],
    source: str,
    parents: tuple[int, ...],
) -> None:
    """Note the line of every value below ``node``, and each key that stands twice."""
    if node is None:
        return
    line = node.start_mark.line + 1
    lines[path] = line if path else 1
    if id(node) in parents:
        mistakes.append(f"{source}:{line}: an anchor must not contain itself")
        return
    inside = (*parents, id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _walk(item, (*path, index), lines, mistakes, source, inside)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*path, str(key.value))
            key_line = key.start_mark.line + 1
            if inner in lines:
                mistakes.append(
                    f"{source}:{key_line}: {format_path(inner)}: a key must stand once, "
                    f"but line {lines[inner]} has it too; remove one"
                )
            _walk(value, inner, lines, mistakes, source, inside)
            lines[inner] = key_line
