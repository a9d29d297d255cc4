"""English as the program speaks it."""

from __future__ import annotations

from bhnbench.words import counted, one_line


def test_one_is_no_plural() -> None:
    assert [counted(n, "run") for n in (0, 1, 2)] == ["0 runs", "1 run", "2 runs"]
    assert [counted(n, "study", "studies") for n in (1, 2)] == ["1 study", "2 studies"]


def test_a_line_is_one_that_every_database_takes() -> None:
    assert one_line("a\n  b\t\0c \ud800") == "a b c ?"
    assert one_line(ValueError("x\ny")) == "x y"
