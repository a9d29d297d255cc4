"""Where a number came from: code, versions, machine."""

from __future__ import annotations

import json
import platform
import socket
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any

from bhnbench.plugins import Plugin, find_plugin
from bhnbench.specs import RunSpec

PACKAGES = ("bhnbench", "torch", "numpy", "ray", "optuna", "scikit-learn")
GIT_STATES = "git_states.json"  # beside the metadata of a package that a job took along


def provenance_of(spec: RunSpec, device: str, n_threads: int) -> dict[str, Any]:
    """Everything needed to know what made a run's numbers. Holds no secrets and no environment."""
    return {
        "packages": _versions(),
        "plugins": {
            "task": _describe(find_plugin("task", spec.task.name)),
            "method": _describe(find_plugin("method", spec.method.name)),
        },
        "data_digest": spec.task.data_digest,
        "host": socket.gethostname(),
        "device": device,
        "n_threads": n_threads,
    }


@cache
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "system": f"{sys.platform} {platform.machine()}"}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@cache
def _describe(plugin: Plugin) -> dict[str, Any]:
    return {
        "target": plugin.target,
        "package": f"{plugin.package} {plugin.package_version}",
        "source_digest": plugin.source_digest,
        "git": git_state(plugin.source_path.parent) or _shipped_state(plugin),
    }


def _shipped_state(plugin: Plugin) -> dict[str, Any] | None:
    """The state of the checkout that a job's code came from, told by whoever sent it."""
    try:
        text = distribution(plugin.package).read_text(GIT_STATES)
    except PackageNotFoundError:
        return None
    states: dict[str, Any] = json.loads(text) if text else {}
    module = f"{plugin.target.partition(':')[0]}."
    return next((state for root, state in states.items() if module.startswith(f"{root}.")), None)


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit of the checkout that holds ``folder``, and whether files differ from it."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None or _git(folder, "ls-files", ".") in (None, ""):
        return None  # no checkout, or an installed package inside somebody else's
    return {"commit": commit, "dirty": _git(folder, "status", "--porcelain") != ""}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True, text=True, timeout=20, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
