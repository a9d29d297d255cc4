"""`bhnbench gc`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from bhnbench.cli.options import home_option, json_option, print_json
from bhnbench.errors import BhnbenchError
from bhnbench.home import Home
from bhnbench.words import counted

if TYPE_CHECKING:
    from bhnbench.garbage import Garbage

WHY = {
    "checkpoint": "of runs that ended, or that the ledger does not know",
    "scratch folder": "of processes that are gone",
    "figures folder": "of sweeps that are not in the ledger",
    "journal file": "of months ago",
    "artifact folder": "of runs that MLflow does not know",
}


@click.command()
@click.option("--dry-run", is_flag=True, help="Show what would go, and remove nothing.")
@click.option(
    "--orphans",
    is_flag=True,
    help="Also remove studies, trials and runs that no sweep in the ledger refers to.",
)
@json_option
@home_option
def gc(dry_run: bool, orphans: bool, as_json: bool, home: Home) -> None:
    """Remove what nothing refers to: progress of runs that ended, and what killed sweeps left.

    Not while a sweep runs in this home. Runs stay, unless --orphans is given: they are a cache.
    """
    from bhnbench.ledger.orphans import remove_orphans

    if not home.folder.is_dir():
        raise BhnbenchError(f"{home.folder}: there is no home; name one with --home")
    with home.locked():
        alone = not home.shares_ledger
        rows = remove_orphans(home.ledger, alone=alone, dry_run=dry_run) if orphans else None
        garbage, problems = _sweep_up(home, dry_run=dry_run)
    if as_json:
        print_json(_content(garbage, rows, problems, dry_run=dry_run))
    else:
        _print(garbage, rows, home, dry_run=dry_run)
        for problem in problems:
            click.echo(f"error: {problem}", err=True)
    if problems:
        raise SystemExit(1)


def _sweep_up(home: Home, *, dry_run: bool) -> tuple[list[Garbage], list[str]]:
    """What goes, or would go; and what could not be looked at or removed."""
    from bhnbench.garbage import find_garbage
    from bhnbench.ledger.ledger import Ledger

    gone: list[Garbage] = []
    problems: list[str] = []
    with Ledger(home.ledger, driven=home.shares_ledger) as ledger:
        try:
            for garbage in find_garbage(home, ledger):
                try:
                    if not dry_run:
                        garbage.remove()
                    gone.append(garbage)
                except OSError as error:
                    problems.append(f"{garbage.path}: cannot be removed: {error.strerror}")
        except BhnbenchError as error:
            problems.append(f"artifacts were left alone: {error}")
    return gone, problems


def _print(
    garbage: Sequence[Garbage], rows: dict[str, int] | None, home: Home, *, dry_run: bool
) -> None:
    for kind, why in WHY.items():
        ours = [one for one in garbage if one.kind == kind]
        if ours:
            click.echo(f"{counted(len(ours), kind)} {why}: {_mib(sum(g.n_bytes for g in ours))}")
    for one in garbage if dry_run else ():
        click.echo(f"  {one.path.relative_to(home.folder)}  {_mib(one.n_bytes)}")
    if rows is None:
        _hint(home)
    elif any(rows.values()):
        parts = counted(rows["studies"], "study", "studies"), counted(rows["trials"], "trial")
        freed = f": {_mib(rows['bytes'])}" if rows["bytes"] else ""
        runs = counted(rows["runs"], "run")
        click.echo(f"{', '.join(parts)} and {runs} that no sweep refers to{freed}")
    total = sum(one.n_bytes for one in garbage) + (rows["bytes"] if rows else 0)
    nothing = not garbage and not any((rows or {}).values())
    verb = "would free" if dry_run else "freed"
    click.echo("nothing to remove" if nothing else f"{verb} {_mib(total)} in {home.folder}")


def _hint(home: Home) -> None:
    from bhnbench.ledger.orphans import count_orphan_studies

    n_studies = count_orphan_studies(home.ledger)
    if n_studies:
        studies = counted(n_studies, "study", "studies")
        click.echo(
            f"{studies} that no sweep refers to stay, with their runs; --orphans removes them"
        )


def _mib(n_bytes: int) -> str:
    return f"{n_bytes / 2**20:.1f} MiB" if n_bytes >= 2**20 else f"{n_bytes / 1024:.1f} KiB"


def _content(
    garbage: Sequence[Garbage],
    rows: dict[str, int] | None,
    problems: Sequence[str],
    *,
    dry_run: bool,
) -> dict[str, object]:
    return {
        "dry_run": dry_run,
        "bytes": sum(one.n_bytes for one in garbage) + (rows["bytes"] if rows else 0),
        "removed": [
            {"kind": one.kind, "path": str(one.path), "bytes": one.n_bytes} for one in garbage
        ],
        "ledger": rows,
        "problems": list(problems),
    }
