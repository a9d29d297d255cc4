"""Hyperparameters of one method as the text of a hyperparameter of another."""

from __future__ import annotations

import yaml

from bhnbench.errors import did_you_mean
from bhnbench.space import Value, fields_of

_WORDS = {"true": True, "false": False, "null": None}


def read_settings(text: str, cls: type, name: str) -> dict[str, Value]:
    """What ``text``, such as "rate: 0.2, weight_decay: 1", says of the fields of ``cls``.

    Args:
        text: the inside of a YAML mapping; quote what holds a comma.
        cls: the method whose declared fields check names and values.
        name: the method, in messages.

    Raises:
        ValueError: it is no such text, or a name or a value is wrong.
    """
    fields = fields_of(cls)
    checked: dict[str, Value] = {}
    for key, value in _parse(text):
        if key not in fields:
            raise ValueError(f"{name} has no field {key!r}; {did_you_mean(key, fields)}")
        if key in checked:
            raise ValueError(f"names must differ, but {key!r} stands twice")
        try:
            checked[key] = fields[key].check(value)
        except ValueError as error:
            raise ValueError(f"{key} {error}") from error
    return checked


def _parse(text: str) -> list[tuple[str, object]]:
    """Names and values, in their order."""
    try:
        node = yaml.compose(f"{{{text}}}", Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        node = None
    pairs = node.value if isinstance(node, yaml.MappingNode) else None
    if pairs is None or not all(isinstance(n, yaml.ScalarNode) for pair in pairs for n in pair):
        raise ValueError(f'must be like "rate: 0.2, weight_decay: 1", but got {text!r}')
    return [(key.value, _read(value)) for key, value in pairs]


def _read(node: yaml.ScalarNode) -> object:
    """A number, a word or a text; 1e-3 is a number too, which YAML 1.1 takes for a text."""
    if node.style is not None:  # quoted
        return node.value
    if node.value in _WORDS:
        return _WORDS[node.value]
    try:
        return float(node.value)
    except ValueError:
        return node.value
