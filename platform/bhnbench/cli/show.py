"""`bhnbench show`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from bhnbench.cli.options import (
    console,
    duration,
    find_run,
    home_option,
    json_option,
    open_ledger,
    print_json,
)  # fmt: skip
from bhnbench.home import Home
from bhnbench.words import counted

if TYPE_CHECKING:
    from bhnbench.ledger.records import RunRecord
    from bhnbench.runs import Point

CURVE_ROWS = 10


@click.command()
@click.argument("run")
@json_option
@home_option
def show(run: str, as_json: bool, home: Home) -> None:
    """Show everything about RUN: its number, or the beginning of its key."""
    with open_ledger(home) as ledger:
        found = find_run(ledger, run)
        points, tables = ledger.points(found.id), ledger.tables(found.id)
    if as_json:
        print_json(_content(found, points, tables))
    else:
        _print(found, points, tables)


def repeat_command(record: RunRecord) -> str:
    """The command that executes the run again, here."""
    spec = record.spec
    parts = ["bhnbench", "run", spec.task.name, spec.method.name]
    for owner, plugin in (("task", spec.task), ("method", spec.method)):
        for name, value in plugin.settings.items():
            parts += ["--set", f"{owner}.{name}={json.dumps(value)}"]
    parts += ["--seed", str(spec.seed), "--holdout", spec.holdout]
    threads = record.provenance.get("n_threads", 1)
    if threads != 1:
        parts += ["--threads", str(threads)]
    return shlex.join(parts)


def _content(
    record: RunRecord, points: Sequence[Point], tables: Mapping[str, Any]
) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(record) | {
        "curve": [{"step": step, **metrics} for step, metrics in points],
        "tables": dict(tables),
        "repeat": repeat_command(record),
    }


def _print(record: RunRecord, points: Sequence[Point], tables: Mapping[str, Any]) -> None:
    spec = record.spec
    click.echo(f"run {record.id}  {record.key}")
    failed = f" ({record.failure}: {record.message})" if record.failure else ""
    ended = f"stopped early at step {points[-1][0]}" if record.state == "pruned" else record.state
    click.echo(f"{spec.method.name} on {spec.task.name}: {ended}{failed}")
    for warning in record.warnings:
        click.echo(f"warning: {warning}")
    attempts = f", attempt {record.attempts}" if record.attempts > 1 else ""
    click.echo(f"phase {spec.phase}, scored on {spec.holdout}, seed {spec.seed}{attempts}")
    cost = record.cost
    memory = f", peak memory {cost.peak_memory_mb:.0f} MiB" if cost.peak_memory_mb else ""
    seconds = duration(cost.fit_seconds), duration(cost.score_seconds)
    click.echo(f"fitting {seconds[0]}, scoring {seconds[1]}{memory}")
    if record.scores:
        _print_pairs("scores", {k: f"{v:.6g}" for k, v in record.scores.items()})
    _print_pairs(f"configuration of {spec.method.name}", spec.method.settings)
    _print_pairs(f"settings of {spec.task.name}", spec.task.settings)
    if points:
        _print_curve(points)
    for name, columns in tables.items():
        rows = counted(len(next(iter(columns.values()), [])), "row")
        click.echo(f"table {name}: {rows} of {', '.join(columns)} (whole with --json)")
    _print_pairs("provenance", _flat(record.provenance))
    click.echo(f"repeat it with:\n  {repeat_command(record)}")


def _print_pairs(title: str, content: Mapping[str, Any]) -> None:
    from rich.table import Table

    click.echo(f"\n{title}")

    table = Table(show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in content.items():
        table.add_row(name, "null" if value is None else str(value))
    console().print(table)


def _print_curve(points: Sequence[Point]) -> None:
    from rich.table import Table

    names = list(dict.fromkeys(name for _, metrics in points for name in metrics))
    most = max(len(metrics) for _, metrics in points)
    full = [point for point in points if len(point[1]) == most]  # not all reports hold all metrics
    stride = -(-len(full) // CURVE_ROWS)
    shown = [*full[::stride]]
    if shown[-1] is not points[-1]:
        shown.append(points[-1])
    table = Table("step", *names)
    click.echo("\ncurve")
    for step, metrics in shown:
        values = (f"{metrics[name]:.4g}" if name in metrics else "" for name in names)
        table.add_row(str(step), *values)
    console().print(table)


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        name = f"{prefix}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat
