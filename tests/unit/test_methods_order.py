"""Every method's file has the same names in the same order: who has read one has read all."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from bhnbench.plugins import installed

ORDER = [
    "__post_init__",
    "make_teacher",
    "make_model",
    "recipe",
    "supports",
    "members_of",
    "make_predictive",
    "fit_many",
]


OURS = [name for name, p in installed("method").items() if p.target.startswith("bhnbench_methods")]


@pytest.mark.parametrize("name", OURS)
def test_public_functions_come_in_one_order(name: str) -> None:
    plugin = installed("method")[name]
    tree = ast.parse(Path(plugin.source_path).read_text())
    attribute = plugin.target.partition(":")[2]
    (cls,) = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == attribute]
    functions = [n.name for n in cls.body if isinstance(n, ast.FunctionDef)]
    public = [f for f in functions if not f.startswith("_") or f == "__post_init__"]
    assert public == sorted(public, key=ORDER.index)
    kinds = [type(n) for n in cls.body]
    assert kinds == sorted(kinds, key=[ast.Expr, ast.AnnAssign, ast.FunctionDef].index)
    first_class = next(n for n in tree.body if isinstance(n, ast.ClassDef))
    assert first_class is cls, "the method comes before its model"
