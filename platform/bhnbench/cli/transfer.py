"""`bhnbench export` and `bhnbench merge`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bhnbench.cli.options import (
    find_sweep,
    home_option,
    json_option,
    open_ledger,
    print_json,
)  # fmt: skip
from bhnbench.errors import BhnbenchError
from bhnbench.home import Home
from bhnbench.words import counted

if TYPE_CHECKING:
    from bhnbench.ledger.merge import MergeReport

SHOWN = 5  # differences, one line each
NOUNS = {"sweeps": "sweep", "studies": "study", "trials": "trial", "runs": "run"}

file_argument = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))


@click.command()
@file_argument
@click.argument("sweeps", metavar="[SWEEP]...", nargs=-1)
@click.option("--force", is_flag=True, help="Replace FILE where there is one.")
@json_option
@home_option
def export(file: Path, sweeps: Sequence[str], force: bool, as_json: bool, home: Home) -> None:
    """Write the ledger to FILE, whole or what belongs to each SWEEP, a name or number.

    `bhnbench merge FILE` takes it in at another home. It is a zip of JSON lines, without
    passwords, checkpoints and figures.
    """
    from bhnbench.ledger.export import export_rows

    if file.exists() and not force:
        raise BhnbenchError(f"{file}: must not be there yet; name another file, or add --force")
    ids = None
    if sweeps:
        with open_ledger(home) as ledger:
            ids = {find_sweep(ledger, sweep).id for sweep in sweeps}
    rows = export_rows(home.ledger, file, ids)
    if as_json:
        print_json({"file": str(file), "bytes": file.stat().st_size, "rows": rows})
        return
    size = file.stat().st_size / 2**20
    click.echo(f"{file}: {_counts(rows)}, {size:.1f} MiB; take it in with: bhnbench merge {file}")


@click.command()
@file_argument
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@json_option
@home_option
def merge(file: Path, dry_run: bool, as_json: bool, home: Home) -> None:
    """Take in FILE, which `bhnbench export` wrote at another home.

    What is not here yet comes in. A run that is done here stays as it is; one that failed here is
    replaced where it is done there. Merging again changes nothing.
    """
    from bhnbench.ledger.merge import merge_rows

    shared = home.shares_ledger  # its drivers hold other homes
    with nullcontext() if shared else home.locked():
        report = merge_rows(home.ledger, file, driven=shared, dry_run=dry_run)
    if as_json:
        print_json(_content(report, dry_run=dry_run))
    else:
        _print(report, file, dry_run=dry_run)


def _counts(numbers: Mapping[str, int]) -> str:
    """Numbers of rows, of what people know by name."""
    found = [(numbers.get(name, 0), noun) for name, noun in NOUNS.items() if name in numbers]
    return ", ".join(counted(n, noun, "studies" if noun == "study" else "") for n, noun in found)


def _print(report: MergeReport, file: Path, *, dry_run: bool) -> None:
    would = "would be " if dry_run else ""
    click.echo(f"{would}new here: {_counts(report.new)}")
    if any(report.replaced.values()):
        runs, trials = (report.replaced.get(name, 0) for name in ("runs", "trials"))
        what = f"{counted(runs, 'run')} and {counted(trials, 'trial')}"
        click.echo(f"{would}replaced, since they got further in {file.name}: {what}")
    click.echo(f"known here already: {_counts(report.known)}")
    if report.under_way:
        left = _counts(report.under_way)
        click.echo(
            f"left alone, since drivers are at work on them here: {left}; merge again later"
        )
    if report.other_trials:
        others = counted(report.other_trials, "trial")
        click.echo(f"{others} tried another configuration here than there; those here stay")
    _print_differences(report)
    if report.changed and not dry_run:
        click.echo("`bhnbench leaderboard` shows it; `bhnbench sync` sends it to MLflow")


def _print_differences(report: MergeReport) -> None:
    different = report.differences
    if not different:
        return
    runs = counted(len({difference.run_id for difference in different}), "run")
    click.echo(f"{runs} done in both with other scores; those here stay:", err=True)
    for one in different[:SHOWN]:
        values = f"{one.here!r} here, {one.there!r} there"
        click.echo(f"  run {one.run_id} ({one.key[:12]}): {one.metric} is {values}", err=True)
    if len(different) > SHOWN:
        click.echo(f"  ... and {len(different) - SHOWN} more; --json lists all", err=True)


def _content(report: MergeReport, *, dry_run: bool) -> dict[str, object]:
    return {
        "dry_run": dry_run,
        "new": report.new,
        "replaced": report.replaced,
        "known": report.known,
        "under_way": report.under_way,
        "other_trials": report.other_trials,
        "differences": [difference._asdict() for difference in report.differences],
    }
