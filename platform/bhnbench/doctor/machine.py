"""This machine: Python, packages, torch, devices, memory that processes share."""

from __future__ import annotations

import platform
import resource
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import TYPE_CHECKING

from bhnbench.findings import Check, Verdict, failed, ok, skipped, warning
from bhnbench.words import counted, one_line

if TYPE_CHECKING:
    from packaging.requirements import Requirement

GROUP = "This machine"
PACKAGE = "bhnbench"
DEVICES = Path("/dev")
SHARED_MEMORY = Path("/dev/shm")
ENOUGH_SHARED_MB = 256  # Docker gives 64, with which Ray falls back to a disk
ENOUGH_FILES = 4096  # Ray warns below that


def checks() -> Iterator[Check]:
    """What holds for any sweep here."""
    yield Check(GROUP, "Python", python_version)
    yield Check(GROUP, "packages", package_versions)
    yield Check(GROUP, "torch", torch_devices, seconds=60)  # its import, from a slow disk
    yield Check(GROUP, "shared memory", shared_memory)
    yield Check(GROUP, "open files", open_files)


def python_version() -> Verdict:
    """Within what the package requires."""
    from packaging.specifiers import SpecifierSet

    here = platform.python_version()
    required = ",".join(distribution(PACKAGE).metadata.get_all("Requires-Python") or ())
    if SpecifierSet(required).contains(here, prereleases=True):
        return ok(here)
    fix = f"make a virtual environment with a Python {required}"
    return failed(f"{here}, but {PACKAGE} needs {required}", fix)


def package_versions() -> Verdict:
    """Each requirement is installed, in a version of its range."""
    from packaging.requirements import Requirement

    requirements = [Requirement(text) for text in distribution(PACKAGE).requires or ()]
    needed = [r for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})]
    wrong = [(r, found) for r in needed if (found := _mismatch(r))]
    if not wrong:
        return ok(f"{counted(len(needed), 'package')} of the versions that {PACKAGE} needs")
    asked = " ".join(f"'{r.name}{r.specifier}'" for r, _ in wrong)
    return failed("; ".join(found for _, found in wrong), f"pip install {asked}")


def _mismatch(requirement: Requirement) -> str:
    try:
        here = version(requirement.name)
    except PackageNotFoundError:
        return f"{requirement.name} is missing"
    if requirement.specifier.contains(here, prereleases=True):
        return ""
    return f"{requirement.name} is {here}, but must be {requirement.specifier}"


def torch_devices() -> Verdict:
    """It computes, on the processors and on every CUDA device that is here."""
    try:
        import torch
    except (ImportError, OSError) as error:  # a shared library may be missing
        return failed(
            f"cannot be imported: {one_line(error)}", "pip install --force-reinstall torch"
        )
    said = f"{torch.__version__}, {counted(torch.get_num_threads(), 'thread')}"
    if not torch.cuda.is_available():
        return _without_cuda(said)
    names = []
    for number in range(torch.cuda.device_count()):
        names.append(name := torch.cuda.get_device_name(number))
        try:
            torch.ones(2, device=f"cuda:{number}").sum().item()
        except RuntimeError as error:
            reason = one_line(error)[:200]
            fix = "see nvidia-smi; a torch for another CUDA version: pytorch.org/get-started"
            return failed(f"{said}; cuda:{number} ({name}) does not compute: {reason}", fix)
    return ok(f"{said}, CUDA {torch.version.cuda}: {', '.join(names)}")


def _without_cuda(said: str) -> Verdict:
    """No CUDA device is ordinary, unless there is one."""
    here = sorted(path.name for path in DEVICES.glob("nvidia[0-9]*"))
    if not here:
        return ok(f"{said}, no CUDA device")
    fix = "install a torch for CUDA (pytorch.org/get-started), or leave out resources.gpu"
    return warning(f"{said}; {', '.join(here)} is here, but this torch cannot use it", fix)


def shared_memory() -> Verdict:
    """Ray passes data between processes in it."""
    if not SHARED_MEMORY.is_dir():
        return skipped(f"there is no {SHARED_MEMORY} on this system")
    usage = shutil.disk_usage(SHARED_MEMORY)
    said = f"{usage.free / 1e6:.0f} MB free of {usage.total / 1e6:.0f} MB in {SHARED_MEMORY}"
    if usage.free >= ENOUGH_SHARED_MB * 1e6:
        return ok(said)
    fix = "delete what is left in it; in a container, start that with --shm-size=2g"
    return warning(f"{said}; below {ENOUGH_SHARED_MB} MB Ray goes to disk, and is slow", fix)


def open_files() -> Verdict:
    """Ray takes as many as the hard limit allows."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY:
        return ok("no limit")
    if hard >= ENOUGH_FILES:
        return ok(f"up to {hard} a process")
    fix = "raise it: ulimit -Hn 65536 as root, or LimitNOFILE= of the service"
    return warning(f"up to {hard} a process; Ray asks for {ENOUGH_FILES} at least", fix)
