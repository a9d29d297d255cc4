"""What a job takes along: the sweep file, the packages of its plugins, a user's own arrays.

All of it is one archive, which Ray unpacks on every node and puts first on the Python path.
Plugins are found by entry point, so a package's entry points travel beside its code; nothing has
to be installed on the cluster but what the packages depend on.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path, PurePosixPath
from typing import Any, get_args

import yaml

from bhnbench.errors import JobError
from bhnbench.plugins import Kind, installed
from bhnbench.provenance import GIT_STATES, git_state
from bhnbench.sweep.document import Sweep
from bhnbench.words import mebibytes

LIMIT = 100 * 2**20  # bytes that a Ray dashboard takes in one request
SWEEP_FILE = "sweep.yaml"
LARGEST = 5  # files that are named where the archive is too large
OUR_PACKAGE = "bhnbench"
# Of a source folder; an installed package is what its author ships, and is taken whole.
FOLDERS = {"venv", "node_modules", "mlruns", "bhnbench_home", "build", "dist", "__pycache__"}
DATABASES = r"\.(db|sqlite3?|duckdb)([-.](wal|shm|journal))?"
DATA = r"\.(np[yz]|pt|pth|ckpt|safetensors|h5|hdf5|parquet|arrow|feather|pkl|pickle|joblib|mat)"
ARCHIVES = r"\.(zip|tar|tgz|gz|bz2|xz|zst|7z)"
LEFT_OUT = re.compile(rf".*({DATABASES}|{DATA}|{ARCHIVES})", re.IGNORECASE)


@dataclass
class Shipment:
    """What goes along, before it is packed."""

    files: dict[str, Path | bytes] = field(default_factory=dict)  # by name in the archive
    packages: list[str] = field(default_factory=list)  # "name version"
    left_out: list[str] = field(default_factory=list)  # data and databases of source folders

    def pack(self, archive: Path, limit: int = LIMIT) -> int:
        """Write the archive, the same bytes for the same content, and return its size.

        Raises:
            JobError: it is larger than a cluster takes; names the largest files.
        """
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, content in sorted(self.files.items()):
                entry = zipfile.ZipInfo(name)  # of 1980: no time of today's goes in
                entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
                packed.writestr(entry, content if isinstance(content, bytes) else _read(content))
            sizes = {entry.filename: entry.compress_size for entry in packed.infolist()}
        size = archive.stat().st_size
        if size >= limit:
            largest = sorted(sizes, key=lambda name: -sizes[name])[:LARGEST]
            named = ", ".join(f"{name} ({mebibytes(sizes[name])})" for name in largest)
            raise JobError(
                f"what a job takes along must be below {mebibytes(limit)} packed, but is "
                f"{mebibytes(size)}; have the largest on every node instead, below $BHNBENCH_DATA "
                f"say: {named}"
            )
        return size


def gather(sweep: Sweep) -> Shipment:
    """Everything that a job needs which a cluster may not have.

    Raises:
        JobError: a package or a file cannot be found.
    """
    shipment = Shipment()
    for name in _packages_of(sweep):
        _add_package(shipment, name)
    _add_sweep(shipment, sweep)
    return shipment


def _packages_of(sweep: Sweep) -> list[str]:
    """Packages of every plugin that the sweep names, as a task, a method or in a setting."""
    specs = [spec for study in sweep.studies for spec in (study.task, study.method)]
    settings = [value for spec in specs for value in spec.settings.values()]
    named = {spec.name for spec in specs} | set(_texts(settings)) | set(_texts(sweep.content))
    kinds: tuple[Kind, ...] = get_args(Kind)
    plugins = [plugin for kind in kinds for plugin in installed(kind).values()]
    return sorted({OUR_PACKAGE} | {plugin.package for plugin in plugins if plugin.name in named})


def _texts(content: object) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, Mapping):
        yield from _texts(list(content.values()))
    elif isinstance(content, list | tuple):
        for item in content:
            yield from _texts(item)


def _add_package(shipment: Shipment, name: str) -> None:
    """The code of a package, and what its installation says of it."""
    try:
        found = distribution(name)
    except PackageNotFoundError:
        raise JobError(
            f"the package {name} of a plugin cannot be found; install it here"
        ) from None
    roots = dict(_roots(found))
    listed = dict(_installed_files(found))
    for module, path in roots.items():
        if {path, path / "__init__.py"}.isdisjoint(
            listed.values()
        ):  # installed as a source folder
            _add_source(shipment, module, path)
    shipment.files |= listed
    folder = f"{re.sub(r'[-_.]+', '_', found.name)}-{found.version}.dist-info"
    states = {module: git_state(path.parent) for module, path in roots.items()}
    for file, text in {
        "METADATA": found.read_text("METADATA") or found.read_text("PKG-INFO") or "",
        "entry_points.txt": found.read_text("entry_points.txt") or "",
        GIT_STATES: json.dumps(states, sort_keys=True),
    }.items():
        shipment.files[f"{folder}/{file}"] = text.encode()
    shipment.packages.append(f"{found.name} {found.version}")


def _installed_files(found: Distribution) -> Iterator[tuple[str, Path]]:
    """Code and data that an installer put beside the package's metadata."""
    for file in found.files or ():
        outside = ".." in file.parts or file.parts[0].endswith((".dist-info", ".egg-info"))
        signpost = file.suffix == ".pth" or file.name.startswith(("__editable__", "_editable_"))
        path = Path(str(file.locate()))
        if not (outside or signpost or file.suffix == ".pyc") and path.is_file():
            yield file.as_posix(), path


def _roots(found: Distribution) -> Iterator[tuple[str, Path]]:
    """The packages and modules that its entry points name, outermost first: name and place."""
    ours = {e.module for e in found.entry_points if e.group.startswith("bhnbench.")}
    for module in sorted({entry.module for entry in found.entry_points}):
        root = _root(module)
        if root is not None:
            yield root
        elif module in ours:
            raise JobError(
                f"{module} of the package {found.name} cannot be found; install it here"
            )


def _root(module: str) -> tuple[str, Path] | None:
    """The outermost package that holds a module, or the module; not imported."""
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):  # past namespaces, which are nobody's folder
        name = ".".join(parts[:depth])
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):  # ValueError: a module that was made by hand
            return None
        if spec is not None and spec.origin is not None:
            path = Path(spec.origin)
            return name, path.parent if spec.submodule_search_locations else path
    return None


def _add_source(shipment: Shipment, module: str, path: Path) -> None:
    """A package's folder, or a single module, without what is not code."""
    base = PurePosixPath(*module.split("."))
    if path.is_file():
        shipment.files[f"{base}{path.suffix}"] = path
        return
    for folder, folders, names in os.walk(path):
        here = Path(folder)
        inside = base / here.relative_to(path).as_posix()
        data = [f for f in folders if f == "data" and not (here / f / "__init__.py").exists()]
        shipment.left_out += [f"{inside / name}/" for name in data]
        folders[:] = [f for f in folders if f not in data and not _is_clutter(here / f)]
        for name in names:
            if LEFT_OUT.fullmatch(name):
                shipment.left_out.append(str(inside / name))
            elif not (name.endswith(".pyc") or name.startswith(".")):
                shipment.files[str(inside / name)] = here / name


def _is_clutter(folder: Path) -> bool:
    """Version control, environments (by any name), caches."""
    environment = (folder / "pyvenv.cfg").exists()
    return folder.name in FOLDERS or folder.name.startswith(".") or environment


def _add_sweep(shipment: Shipment, sweep: Sweep) -> None:
    """The document, options applied, and the files that it names, at places of their own."""
    places: dict[str, str] = {}
    for study in sweep.studies:
        for spec in (study.task, study.method):
            for name in spec.files:
                path = str(spec.settings[name])
                places[path] = _place(path)
                shipment.files[places[path]] = _find(path)
    content = _replaced(sweep.content, places)
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    shipment.files[SWEEP_FILE] = text.encode()


def _place(path: str) -> str:
    """Where a user's file lies in the archive: where it was, or in a folder for those outside."""
    inside = PurePosixPath(path)
    if not inside.is_absolute() and inside.parts and not {"..", "~"} & set(inside.parts):
        return str(inside)
    mark = hashlib.sha256(path.encode()).hexdigest()[:8]
    return f"files/{mark}-{re.sub(r'[^A-Za-z0-9._-]', '_', inside.name)}"


def _find(path: str) -> Path:
    """A user's file: where the user is, else below the data folder."""
    for folder in (Path(), *map(Path, filter(None, [os.environ.get("BHNBENCH_DATA")]))):
        file = (folder / Path(path).expanduser()).absolute()
        if file.is_file():
            return file
    raise JobError(f"{path}: no such file; write its whole path")


def _replaced(content: Any, places: Mapping[str, str]) -> Any:  # noqa: ANN401 - YAML
    if isinstance(content, Mapping):
        return {key: _replaced(value, places) for key, value in content.items()}
    if isinstance(content, list):
        return [_replaced(item, places) for item in content]
    return places.get(content, content) if isinstance(content, str) else content


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise JobError(f"{path}: cannot be read: {error.strerror}; allow it") from error
