"""`bhnbench data`: the data sets, wherever they come from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from bhnbench.cli.options import any_home_option, console, json_option, print_json
from bhnbench.contract import DataFile, DataSource
from bhnbench.errors import BhnbenchError
from bhnbench.plugins import Plugin, find_plugin, installed, load_source
from bhnbench.progress_bar import show
from bhnbench.words import counted

BUNDLED = "comes with an installed package"


@click.group()
@any_home_option
def data() -> None:
    """List, fetch, check and find data sets.

    Files are read from the folder that $BHNBENCH_DATA names, else from a per-user cache, which
    is filled by download.
    """


@data.command("list")
@json_option
@any_home_option
def list_(as_json: bool) -> None:
    """List the installed data sets, and what of them is on this machine."""
    rows = [_describe(plugin) for plugin in installed("dataset").values()]
    if as_json:
        print_json(rows)
        return
    from rich.table import Table

    table = Table("data set", "what it is", "files", "MB", "here", "from")
    for row in rows:
        files, package = row["files"], f"{row['package']} {row['package_version']}"
        n_files = str(len(files)) if files else ""
        table.add_row(row["name"], row["doc"], n_files, _megabytes(files), row["here"], package)
    console().print(table)


@data.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@any_home_option
def fetch(names: Sequence[str]) -> None:
    """Download what is missing of NAME..., and check all of it."""
    sources = {name: load_source(name) for name in names}
    mistakes = []
    for name, source in sources.items():
        found = _attempt([partial(source.prepare, show)])
        mistakes += found
        if not found:
            click.echo(f"{name}: {_files(source)}, all right")
    _fail(mistakes)


@data.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@any_home_option
def verify(names: Sequence[str]) -> None:
    """Check NAME..., or without it whatever is on this machine; downloads nothing."""
    plugins = [find_plugin("dataset", name) for name in names or installed("dataset")]
    mistakes = []
    for name, source in [(plugin.name, _load(plugin)) for plugin in plugins]:
        if isinstance(source, str):
            mistakes.append(source)
            continue
        here = [file for file in source.files if source.locate(file) is not None]
        if source.files and not here and not names:
            continue
        found = _check(source, source.files if names else here)
        mistakes += found
        if not found:
            part = f"{len(here)} of " if len(here) < len(source.files) else ""
            click.echo(f"{name}: {part}{_files(source)}, all right")
    _fail(mistakes)


@data.command()
@click.argument("name", required=False)
@json_option
@any_home_option
def where(name: str | None, as_json: bool) -> None:
    """Show where the files of NAME are; without it, the folders and what is in them."""
    if name is None:
        _show_folders(as_json=as_json)
        return
    source = load_source(name)
    places = {file.path: source.locate(file) for file in source.files}
    if as_json:
        print_json({"name": name, "files": places})
        return
    for place in places.values():
        if place is not None:
            click.echo(place)
    if not places:
        click.echo(f"{name}: {BUNDLED}")
    looked = " nor in ".join(str(folder) for folder in source.folders)
    missing = [path for path, place in places.items() if place is None]
    _fail([f"{path}: not in {looked}; `bhnbench data fetch {name}` gets it" for path in missing])


def _show_folders(*, as_json: bool) -> None:
    """Every folder that is looked in, and the data sets of which it has something."""
    folders: dict[Path, list[str]] = {}
    for name, plugin in installed("dataset").items():
        source = _load(plugin)
        if isinstance(source, DataSource) and source.files:
            places = [source.locate(file) for file in source.files]
            for folder in source.folders:
                names = folders.setdefault(folder, [])
                if any(place is not None and folder in place.parents for place in places):
                    names.append(name)
    if as_json:
        print_json([{"folder": folder, "datasets": names} for folder, names in folders.items()])
        return
    for folder, names in folders.items():
        click.echo(f"{folder}: {', '.join(names) or 'nothing'}")


def _load(plugin: Plugin) -> DataSource | str:
    """The data set, or why it cannot be imported: it must not hide the others."""
    try:
        return load_source(plugin.name)
    except BhnbenchError as error:
        return str(error)


def _describe(plugin: Plugin) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": plugin.name,
        "package": plugin.package,
        "package_version": plugin.package_version,
        "target": plugin.target,
    }
    source = _load(plugin)
    if isinstance(source, str):
        return row | {"doc": source, "origin": "", "files": [], "here": "broken"}
    files = [
        {"path": f.path, "digest": f.digest, "size": f.size, "at": source.locate(f)}
        for f in source.files
    ]
    n_here = sum(file["at"] is not None for file in files)
    here = "yes" if n_here == len(files) else counted(n_here, "file") if n_here else "no"
    return row | {"doc": source.doc, "origin": source.origin, "files": files, "here": here}


def _megabytes(files: Sequence[dict[str, Any]]) -> str:
    """What is published; where the size of some files is not known, at least so much."""
    sizes = [file["size"] for file in files]
    known = sum(size for size in sizes if size is not None)
    return f"{known / 1e6:.1f}{'+' if None in sizes else ''}" if known else ""


def _files(source: DataSource) -> str:
    return counted(len(source.files), "file") if source.files else BUNDLED


def _check(source: DataSource, files: Iterable[DataFile]) -> list[str]:
    """What is wrong with these files, or with a data set that has none: reading it checks it."""
    if not source.files:
        return _attempt([partial(source.prepare, show)])
    return _attempt([partial(source.verify, file) for file in files])


def _attempt(steps: Iterable[Callable[[], None]]) -> list[str]:
    mistakes = []
    for step in steps:
        try:
            step()
        except BhnbenchError as error:
            mistakes.append(str(error))
    return mistakes


def _fail(mistakes: Sequence[str]) -> None:
    """End with exit code 1 and one line a mistake, if there are any."""
    for mistake in mistakes:
        click.echo(f"error: {mistake}", err=True)
    if mistakes:
        click.get_current_context().exit(1)
