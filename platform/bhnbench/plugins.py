"""Methods, tasks and data sets, found by entry point. Listing them imports none of them."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal, cast

from bhnbench.contract import DataSource, Method, Task
from bhnbench.errors import BhnbenchError, ContractError, UnknownPluginError, did_you_mean
from bhnbench.interrupts import interrupts_deferred

Kind = Literal["method", "task", "dataset"]


@dataclass(frozen=True)
class Plugin:
    """An installed method, task or data set: where it is, not what it is."""

    kind: Kind
    name: str
    target: str  # "module:attribute"
    package: str  # the distribution that brings it
    package_version: str

    def load(self) -> type:
        """Import the module and return the class of a method or task.

        Raises:
            ContractError: it cannot be imported, or is no method or task.
        """
        return load_target(self.kind, self.target)

    @property
    def source_path(self) -> Path:
        """The module's file, found without importing it."""
        module = self.target.partition(":")[0]
        try:
            spec = importlib.util.find_spec(module)
        except ImportError as error:
            raise ContractError(f"{module}: cannot be found: {error}") from error
        if spec is None or spec.origin is None:
            raise ContractError(f"{module}: cannot be found")
        return Path(spec.origin)

    @property
    def summary(self) -> str:
        """First line of the module's docstring, read without importing it."""
        try:
            doc = ast.get_docstring(ast.parse(self.source_path.read_bytes()))
        except (BhnbenchError, SyntaxError, OSError) as error:
            return f"cannot be read: {error}"
        return (doc or "").partition("\n")[0]

    @property
    def source_digest(self) -> str:
        """sha256 of the module's source."""
        return hashlib.sha256(self.source_path.read_bytes()).hexdigest()


def load_target(kind: Kind, target: str) -> type:
    """The class at ``module:attribute``; what a worker calls with what the driver resolved."""
    plugin = _import(kind, target)
    base = Method if kind == "method" else Task
    if not (isinstance(plugin, type) and issubclass(plugin, base)):
        raise ContractError(f"{kind} {target}: must be a subclass of {base.__qualname__}")
    return plugin


def _import(kind: Kind, target: str) -> Any:  # noqa: ANN401 - whatever is there
    module, _, attribute = target.partition(":")
    try:
        with interrupts_deferred():
            return getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a module may raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ContractError(f"{kind} {target}: cannot be imported: {reason}") from error


@cache
def installed(kind: Kind) -> dict[str, Plugin]:
    """Every installed plugin of a kind, by name."""
    plugins: dict[str, Plugin] = {}
    for entry in sorted(entry_points(group=f"bhnbench.{kind}s"), key=lambda e: (e.name, e.value)):
        dist = entry.dist
        package, version = (dist.name, dist.version) if dist else ("unknown", "unknown")
        other = plugins.get(entry.name)
        if other is not None and other.target != entry.value:
            raise ContractError(
                f"{kind} names must be unique, but {entry.name!r} comes from {other.package} "
                f"({other.target}) and from {package} ({entry.value}); uninstall one of them"
            )
        plugins[entry.name] = Plugin(kind, entry.name, entry.value, package, version)
    return plugins


def find_plugin(kind: Kind, name: str) -> Plugin:
    """The installed plugin of that name.

    Raises:
        UnknownPluginError: none is installed; names the nearest one.
    """
    plugins = installed(kind)
    if name not in plugins:
        raise UnknownPluginError(f"no {kind} {name!r} is installed; {did_you_mean(name, plugins)}")
    return plugins[name]


def load_method(name: str) -> type[Method]:
    """The class of an installed method."""
    return cast("type[Method]", find_plugin("method", name).load())


def load_task(name: str) -> type[Task]:
    """The class of an installed task."""
    return cast("type[Task]", find_plugin("task", name).load())


def load_source(name: str) -> DataSource:
    """An installed data set: its files, and what can be done with them.

    Raises:
        UnknownPluginError: none of that name is installed.
        ContractError: it cannot be imported, or is no data set.
    """
    target = find_plugin("dataset", name).target
    source = _import("dataset", target)
    if not isinstance(source, DataSource):
        raise ContractError(f"dataset {target}: must be a {DataSource.__qualname__}")
    return source
