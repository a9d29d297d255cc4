"""`bhnbench methods`, `bhnbench tasks`, `bhnbench schema`."""

from __future__ import annotations

import inspect
import textwrap
from typing import TYPE_CHECKING, Any

import click

from bhnbench.cli.options import any_home_option, console, json_option, print_json

if TYPE_CHECKING:
    from bhnbench.plugins import Kind, Plugin

PIPED_WIDTH = 95


@click.command()
@click.argument("name", required=False)
@json_option
@any_home_option
def methods(name: str | None, as_json: bool) -> None:
    """List the installed methods, or describe NAME."""
    _list_or_describe("method", name, as_json=as_json)


@click.command()
@click.argument("name", required=False)
@json_option
@any_home_option
def tasks(name: str | None, as_json: bool) -> None:
    """List the installed tasks, or describe NAME."""
    _list_or_describe("task", name, as_json=as_json)


@click.command()
@click.option("--json", is_flag=True, hidden=True, expose_value=False)  # it is JSON anyway
@any_home_option
def schema() -> None:
    """Print the JSON schema of the sweep file, for editors that complete and check YAML."""
    from bhnbench.sweep.schema import json_schema

    print_json(json_schema())


def _list_or_describe(kind: Kind, name: str | None, *, as_json: bool) -> None:
    from bhnbench.plugins import find_plugin, installed

    if name is not None:
        plugin = find_plugin(kind, name)
        content = _describe(plugin)
        print_json(content) if as_json else _print_description(content)
        return
    plugins = installed(kind).values()
    if as_json:
        print_json([_summary(plugin) for plugin in plugins])
        return
    from rich.table import Table

    table = Table(kind, "what it is", "from")
    for plugin in plugins:
        table.add_row(plugin.name, plugin.summary, f"{plugin.package} {plugin.package_version}")
    console().print(table)


def _summary(plugin: Plugin) -> dict[str, str]:
    return {
        "name": plugin.name,
        "summary": plugin.summary,
        "package": plugin.package,
        "package_version": plugin.package_version,
        "target": plugin.target,
    }


def _describe(plugin: Plugin) -> dict[str, Any]:
    from bhnbench.space import fields_of

    cls: Any = plugin.load()
    return _summary(plugin) | {
        "kind": plugin.kind,
        "version": cls.version,
        "doc": inspect.cleandoc(cls.__doc__ or "").replace("``", "`"),
        "fields": [
            {
                "name": field.name,
                "type": field.type_name,
                "default": field.default,
                "valid": str(field.valid) if field.valid else None,
                "search": str(field.search) if field.search else None,
                "doc": field.doc,
            }
            for field in fields_of(cls).values()
        ],
        "metrics": [
            {"name": m.name, "direction": m.direction, "unit": m.unit, "doc": m.doc}
            for m in getattr(cls, "metrics", ())
        ],
    }


def _print_description(content: dict[str, Any]) -> None:
    package = f"{content['package']} {content['package_version']}"
    origin = f"{content['kind']}, version {content['version']}, {package}"
    module, _, cls = content["target"].partition(":")
    click.echo(f"{content['name']}  ({origin})\nin Python: from {module} import {cls}\n")
    click.echo(f"{content['doc']}\n")
    titles = {"method": "hyperparameters (a search covers those with a search space)"}
    click.echo(titles.get(content["kind"], "settings"))
    for field in content["fields"]:
        _print_item(field["name"], _facts(field), field["doc"])
    if content["metrics"]:
        click.echo("\nmetrics")
    for number, metric in enumerate(content["metrics"]):
        better = "higher" if metric["direction"] == "maximize" else "lower"
        unit = f", in {metric['unit']}" if metric["unit"] else ""
        primary = ", primary" if number == 0 else ""
        _print_item(metric["name"], f"{better} is better{unit}{primary}", metric["doc"])


def _facts(field: dict[str, Any]) -> str:
    from bhnbench.yaml_text import in_short

    facts = {
        "default": in_short(field["default"]),
        "valid": field["valid"],
        "search": field["search"],
    }
    said = [f"{name} {value}" for name, value in facts.items() if value is not None]
    return ", ".join([field["type"], *said])


def _print_item(name: str, facts: str, meaning: str) -> None:
    """A name with its facts, and below it what it means, broken at blanks alone."""
    out = console()
    width = out.width if out.is_terminal else PIPED_WIDTH
    head = _fill(f"{name}: {facts}", width, "  ", 8 * " ")
    click.echo(head.replace(name, click.style(name, bold=True), 1))
    if meaning:
        click.echo(_fill(meaning, width, 6 * " ", 6 * " "))


def _fill(text: str, width: int, first: str, others: str) -> str:
    return textwrap.fill(
        text,
        width,
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )
