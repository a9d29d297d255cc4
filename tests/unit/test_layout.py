"""Where things lie: what no linter sees."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import tomllib
from pathlib import Path

import pytest

from bhnbench.contract import Method, Task
from bhnbench.plugins import Kind, load_target

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PACKAGES: dict[Kind, str] = {"method": "bhnbench_methods", "task": "bhnbench_tasks"}


def declared(kind: Kind) -> dict[str, str]:
    return PROJECT["entry-points"][f"bhnbench.{kind}s"]


def test_platform_is_a_folder_and_never_a_package():
    # It would shadow the standard library's platform, and break torch, Ray and pytest.
    shadows = [ROOT / "platform" / "__init__.py", ROOT / "platform.py"]
    shadows += [ROOT / "platform" / "platform.py"]
    assert [path for path in shadows if path.exists()] == []


@pytest.mark.parametrize("kind", PACKAGES)
def test_every_declared_name_loads(kind):
    for name, target in declared(kind).items():
        assert inspect.getdoc(load_target(kind, target)), f"{name} must have a docstring"


@pytest.mark.parametrize("kind", PACKAGES)
def test_every_plugin_is_declared(kind):
    base = Method if kind == "method" else Task
    package = importlib.import_module(PACKAGES[kind])
    found = set()
    for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        for name, value in vars(importlib.import_module(info.name)).items():
            own = inspect.isclass(value) and value.__module__ == info.name
            if own and issubclass(value, base) and not inspect.isabstract(value):
                found.add(f"{info.name}:{name}")
    assert found == set(declared(kind).values())
