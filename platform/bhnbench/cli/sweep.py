"""`bhnbench sweep` and `bhnbench plan`."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bhnbench.cli.options import console, duration, home_option, json_option, print_json
from bhnbench.home import Home
from bhnbench.interrupts import interrupts_deferred, preemptions_heard
from bhnbench.words import counted

if TYPE_CHECKING:
    from bhnbench.driver import SweepEnd
    from bhnbench.ledger.ledger import Ledger
    from bhnbench.status import StudyStatus
    from bhnbench.sweep.document import Sweep
    from bhnbench.sweep.execution import Resources

set_option = click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="Change the document: a dotted path, such as tasks.0.dataset=mnist. Repeatable.",
)
file_argument = click.argument("file", type=click.Path(path_type=Path))


@click.command()
@file_argument
@set_option
@click.option("--dry-run", is_flag=True, help="Show what would run, and change nothing.")
@click.option(
    "--address",
    metavar="ADDRESS",
    help="The Ray cluster to run on: auto for the one that this machine belongs to, or HOST:PORT "
    "of its head.  [default: $RAY_ADDRESS, else a cluster of this machine's own]",
    callback=lambda _ctx, _param, value: _use_cluster(value),
    expose_value=False,
)
@json_option
@home_option
def sweep(file: Path, overrides: Sequence[str], dry_run: bool, as_json: bool, home: Home) -> None:
    """Run what is left of the sweep in FILE, then print its leaderboard.

    Run it again after an interruption, or a change: what is in the ledger is not done again.
    """
    with preemptions_heard(_say_ending) as listener:
        try:
            _sweep(file, overrides, home, dry_run=dry_run, as_json=as_json)
        except KeyboardInterrupt:
            raise SystemExit(listener.exit_code) from None


def _use_cluster(address: str | None) -> None:
    """Ray reads its address in the environment, as the user might set it there."""
    if address is None:
        return
    if "://" in address:
        raise click.BadParameter(
            f"must be auto or HOST:PORT of a cluster's head, but got {address!r}; run this on a "
            "machine of the cluster, or send it there with `bhnbench submit`"
        )
    os.environ["RAY_ADDRESS"] = address


def _say_ending(signal_name: str) -> None:
    """At once, since the end takes some seconds; no buffered stream may be used in a handler."""
    text = f"{signal_name}: ending the runs under way; what is done is in the ledger\n"
    os.write(2, text.encode())


def _sweep(
    file: Path, overrides: Sequence[str], home: Home, *, dry_run: bool, as_json: bool
) -> None:
    with interrupts_deferred():
        from bhnbench.sweep.document import read_sweep

    document = read_sweep(file, overrides)
    statuses = _plan(document, home)
    if dry_run:
        _print_plan(document, statuses, as_json=as_json)
        return
    _prepare_tasks(statuses)
    with interrupts_deferred():
        from bhnbench.cli.live import shown
        from bhnbench.cli.progress import Progress
        from bhnbench.driver import drive
        from bhnbench.leaderboard.ranking import build_leaderboard
        from bhnbench.leaderboard.tables import render
        from bhnbench.ledger.ledger import Ledger
        from bhnbench.status import study_statuses

    stderr = console(stderr=True)
    progress = Progress(stderr)
    anything_left = any(status.n_left for status in statuses)
    with shown(stderr, progress.table):
        end = drive(document, home, progress, anything_left=anything_left)
    with Ledger(home.ledger) as ledger:
        record = end.record
        statuses = study_statuses(ledger, record.studies, record.n_seeds)
        if not end.interrupted:
            board = build_leaderboard(ledger, record)
            click.echo(render(board, "json" if as_json else "table"))
            _save_figures(end, ledger, home)
    _conclude(end, statuses, [str(file), *_options(overrides, home)], _options((), home))


def _save_figures(end: SweepEnd, ledger: Ledger, home: Home) -> None:
    """Draw what the tasks draw into the home; a figure that fails is told, and no more."""
    from bhnbench.errors import BhnbenchError
    from bhnbench.leaderboard.plots import save_figures

    folder = home.figures_of(end.record.name, end.record.id)
    if not end.n_executed and folder.exists():
        return
    try:
        drawn = save_figures(ledger, end.record, folder)
    except BhnbenchError as error:
        click.echo(f"figures: {error}", err=True)
    else:
        figures = counted(len(drawn), "figure")
        click.echo(f"{figures} in {folder}" if drawn else "nothing to draw", err=True)


def _options(overrides: Sequence[str], home: Home) -> list[str]:
    """The options that name the same sweep again."""
    options = [word for override in overrides for word in ("--set", override)]
    return options if home == Home.locate() else [*options, "--home", str(home.folder)]


def _conclude(
    end: SweepEnd, statuses: Sequence[StudyStatus], again: list[str], options: list[str]
) -> None:
    """Say what is missing, and exit as the sweep ended."""
    if end.interrupted:
        left = sum(status.n_left for status in statuses)
        command = shlex.join(["bhnbench", "sweep", *again])
        done = f"{counted(end.n_executed, 'run')} done now, {left} left"
        click.echo(f"interrupted: {done}; go on with: {command}", err=True)
        raise KeyboardInterrupt
    failed = [run for status in statuses for run in status.failures]
    click.echo(f"{counted(end.n_executed, 'run')} executed, {len(failed)} failed", err=True)
    for problem in end.problems:
        click.echo(problem, err=True)
    if failed:
        command = shlex.join(["bhnbench", "status", end.record.name, *options])
        click.echo(f"see why with: {command}", err=True)
        raise SystemExit(3)


@click.command()
@file_argument
@set_option
@json_option
@home_option
def plan(file: Path, overrides: Sequence[str], as_json: bool, home: Home) -> None:
    """Show what the sweep in FILE would run, what is known already, and how long it may take."""
    from bhnbench.sweep.document import read_sweep

    document = read_sweep(file, overrides)
    _print_plan(document, _plan(document, home), as_json=as_json)


def _plan(document: Sweep, home: Home) -> list[StudyStatus]:
    """Where each study stands; a ledger that a sweep would have to make first knows nothing."""
    from bhnbench.errors import NoLedgerError
    from bhnbench.ledger.ledger import Ledger
    from bhnbench.sweep.plan import plan_sweep

    try:
        with Ledger(home.ledger) as ledger:
            return plan_sweep(document, ledger)
    except NoLedgerError:
        return plan_sweep(document, None)


def _prepare_tasks(statuses: Sequence[StudyStatus]) -> None:
    """Have the data in place before anything is written or started."""
    from bhnbench.runner import load_task

    left = [status.study for status in statuses if status.n_left]
    for task in {study.labels[0]: study.task for study in left}.values():
        load_task(task).prepare()


def _print_plan(document: Sweep, statuses: Sequence[StudyStatus], *, as_json: bool) -> None:
    if as_json:
        print_json(_plan_content(document, statuses))
    else:
        _print_plan_table(document, statuses)


def _slots(resources: Resources) -> int:
    """How many such runs the processors of this machine take at a time."""
    return max(1, (os.cpu_count() or 1) // resources.cpu)


def _expected(document: Sweep, statuses: Sequence[StudyStatus]) -> float | None:
    """Seconds until all is done here; None where some study's runs are not known."""
    total = 0.0
    for status in statuses:
        if status.n_left and status.expected_seconds is None:
            return None
        slots = _slots(document.resources_of(status.study))
        total += status.n_left * (status.expected_seconds or 0.0) / slots
    return total


def _plan_content(document: Sweep, statuses: Sequence[StudyStatus]) -> dict[str, object]:
    return {
        "sweep": document.name,
        "slots": _slots(document.resources),
        "retries": asdict(document.retries),
        "left": sum(status.n_left for status in statuses),
        "expected_seconds": _expected(document, statuses),
        "studies": [
            {
                "task": status.study.labels[0],
                "method": status.study.labels[1],
                "trials": status.n_trials,
                "seeds": status.n_seeds,
                "runs": status.n_trials + status.n_seeds,
                "known": status.n_trials + status.n_seeds - status.n_left,
                "left": status.n_left,
                "expected_seconds": _expected(document, [status]),
                "resources": asdict(document.resources_of(status.study)),
            }
            for status in statuses
        ],
    }


def _print_plan_table(document: Sweep, statuses: Sequence[StudyStatus]) -> None:
    from rich.table import Table

    table = Table(title=f"Plan of {document.name}", title_justify="left")
    for heading in ("task", "method"):
        table.add_column(heading, overflow="fold")
    for heading in ("trials", "seeds", "known", "left", "expected"):
        table.add_column(heading, justify="right")
    differ = len(set(document.own_resources.values())) > 1
    if differ:
        table.add_column("a run takes", overflow="fold")
    for status in statuses:
        known = status.n_trials + status.n_seeds - status.n_left
        numbers = (status.n_trials or "none", status.n_seeds, known, status.n_left)
        cells = [*status.study.labels, *map(str, numbers)]
        cells.append(duration(_expected(document, [status])))
        table.add_row(*cells, *([str(document.resources_of(status.study))] if differ else []))
    console().print(table)
    left = sum(status.n_left for status in statuses)
    total = sum(status.n_trials + status.n_seeds for status in statuses)
    studies = counted(len(statuses), "study", "studies")
    expected = _expected(document, statuses)
    at_a_time = "" if differ else f" at {counted(_slots(document.resources), 'run')} at a time"
    click.echo(
        f"{studies}, {counted(total, 'run')}, {total - left} in the ledger, {left} left; "
        f"expected {duration(expected)}{at_a_time}"
        + ("" if expected is not None else " (? = nothing like it has run yet)")
    )
