"""Every installed method, task and data set can be imported."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import get_args

from bhnbench.errors import BhnbenchError
from bhnbench.findings import Check, Verdict, failed, ok
from bhnbench.plugins import Kind, installed, load_method, load_source, load_task
from bhnbench.words import counted

GROUP = "Plugins"
NAMES: dict[Kind, str] = {"method": "methods", "task": "tasks", "dataset": "data sets"}
LOAD: dict[Kind, Callable[[str], object]] = {
    "method": load_method,
    "task": load_task,
    "dataset": load_source,
}


def checks() -> Iterator[Check]:
    """One a kind."""
    for kind in get_args(Kind):
        yield Check(GROUP, NAMES[kind], partial(all_import, kind), seconds=60)


def all_import(kind: Kind) -> Verdict:
    """Import each; one that is broken hides no other."""
    broken: dict[str, str] = {}  # reason -> package
    plugins = installed(kind)
    for plugin in plugins.values():
        try:
            LOAD[kind](plugin.name)
        except BhnbenchError as error:
            broken[str(error)] = plugin.package
    if not broken:
        return ok(f"{counted(len(plugins), 'is', 'are')} installed, and can be imported")
    packages = ", ".join(dict.fromkeys(broken.values()))
    return failed("\n".join(broken), f"repair or uninstall: {packages}")
