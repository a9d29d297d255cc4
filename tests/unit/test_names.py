"""Names that people give never leave the folder that they name something in."""

from __future__ import annotations

from pathlib import Path

import pytest

from bhnbench.errors import InvalidSweepError
from bhnbench.home import Home
from bhnbench.sweep.document import read_sweep
from bhnbench.words import as_file_name

NASTY = [
    "../../x", "/etc/x", "..", ".", ".hidden", "a/../../b", "a\\..\\b", "~", "~/x", "-rf", "a\0b",
    "a\nb", "\x1b[31m", "\ud800", "x" * 5000, "ä" * 5000, "日本" * 100, "CON", "a b", " ", "",
    "%2e%2e%2f", "$HOME", "*",
]  # fmt: skip


@pytest.mark.parametrize("name", NASTY, ids=lambda name: ascii(name)[:20])
def test_a_file_name_stays_in_its_folder(tmp_path: Path, name: str) -> None:
    safe = as_file_name(name)
    path = tmp_path / f"{safe}-99.svg"
    path.touch()
    assert [path.name] == [found.name for found in tmp_path.iterdir()]
    assert not safe.startswith((".", "-"))
    assert Home(tmp_path).figures_of(name, 3).parent == tmp_path / "figures"


def test_ordinary_names_stay_as_they_are() -> None:
    for name in ("demo-1", "guess-scores", "a.b_c=1", "Größe"):
        assert as_file_name(name) == name


def document(name: str = "demo", label: str = "label", kind: str = "methods") -> str:
    entries = {"tasks": "guess", "methods": "constant"}
    lines = [
        f"{key}: [{{name: {entry}{f', label: {quoted(label)}' if key == kind else ''}}}]"
        for key, entry in entries.items()
    ]
    return "\n".join([f"name: {quoted(name)}", *lines, "evaluate: {seeds: 1}"])


def quoted(text: str) -> str:
    """In YAML, whatever it holds."""
    escaped = (c if c.isascii() and c.isalnum() else f"\\U{ord(c):08x}" for c in text)
    return f'"{"".join(escaped)}"'


@pytest.mark.parametrize("name", [n for n in NASTY if n != "CON"], ids=lambda n: ascii(n)[:20])
def test_the_name_of_a_sweep_is_letters_and_digits(tmp_path: Path, name: str) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(document(name))
    with pytest.raises(InvalidSweepError) as caught:
        read_sweep(path)
    (line,) = caught.value.mistakes
    assert line.startswith(f"{path}:1: name: must ")
    assert line.isprintable()


@pytest.mark.parametrize("kind", ["tasks", "methods"])
@pytest.mark.parametrize(
    ("label", "rule"),
    [
        ("a\0b", r"must be one line of text, but got 'a\x00b'"),
        ("a\nb", "must be one line of text, but got 'a\\nb'"),
        ("\x1b[31m", "must be one line of text, but got '\\x1b[31m'"),
        ("\ud800", "must be text of whole characters, but got '\\ud800'"),
        (" ", "must be one line of text, but got ' '"),
        ("x" * 201, f"must have 200 characters at most, but got '{'x' * 56}..."),
    ],
    ids=["null", "lines", "colour", "surrogate", "blank", "long"],
)
def test_a_label_is_one_line(tmp_path: Path, kind: str, label: str, rule: str) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(document(label=label, kind=kind))
    with pytest.raises(InvalidSweepError) as caught:
        read_sweep(path)
    line = 2 if kind == "tasks" else 3
    assert caught.value.mistakes == [f"{path}:{line}: {kind}[0].label: {rule}"]


@pytest.mark.parametrize("installed", ["guess", "constant"])
@pytest.mark.parametrize("name", ["../../x", "/etc/x", "a\0b", "x.py:os"])
def test_what_is_not_installed_is_refused(tmp_path: Path, installed: str, name: str) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(document(label="l").replace(f"name: {installed}", f"name: {quoted(name)}"))
    with pytest.raises(InvalidSweepError, match="is installed"):
        read_sweep(path)
