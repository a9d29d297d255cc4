"""`bhnbench status`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from bhnbench.cli.options import (
    console,
    find_sweep,
    home_option,
    json_option,
    open_ledger,
    print_json,
)  # fmt: skip
from bhnbench.home import Home
from bhnbench.words import counted

if TYPE_CHECKING:
    from bhnbench.ledger.records import SweepRecord, SweepTitle, WarnedRun
    from bhnbench.status import StudyStatus

SHOWN_FAILURES = 20
SHOWN_SWEEPS = 50


@click.command()
@click.argument("sweep", required=False)
@json_option
@home_option
def status(sweep: str | None, as_json: bool, home: Home) -> None:
    """Show where each study of SWEEP, a name or number, stands (default: started last)."""
    from bhnbench.status import study_statuses, warned_runs

    with open_ledger(home) as ledger:
        record = find_sweep(ledger, sweep)
        statuses = study_statuses(ledger, record.studies, record.n_seeds)
        warned = warned_runs(ledger, record.studies, statuses)
        others = [other for other in ledger.sweep_titles() if other.id != record.id]
    if as_json:
        print_json(_content(record, statuses, warned))
        return
    from bhnbench.cli.progress import progress_table

    console().print(progress_table(statuses, _headline(record, statuses)))
    _print_failures(statuses)
    _print_warnings(statuses, warned)
    _print_others(others)


def _headline(record: SweepRecord, statuses: Sequence[StudyStatus]) -> str:
    left = sum(status.n_left for status in statuses)
    state = "complete" if not left else f"{counted(left, 'run')} left"
    first, last = (f"{t:%Y-%m-%d %H:%M} UTC" for t in (record.created_at, record.started_at))
    resumed = "" if last == first else f", resumed {last}"
    return f"{record.name} (sweep {record.id}): {state}, started {first}{resumed}"


def _print_failures(statuses: Sequence[StudyStatus]) -> None:
    failures = [(status.study, run) for status in statuses for run in status.failures]
    for study, run in failures[:SHOWN_FAILURES]:
        what = "search" if run.phase == "search" else f"seed {run.seed}"
        place = f"{' / '.join(study.labels)}, {what} (run {run.id})"
        click.echo(f"failed: {place}: {run.failure}: {run.message}")
    if len(failures) > SHOWN_FAILURES:
        click.echo(f"... and {len(failures) - SHOWN_FAILURES} more failures; --json lists all")


def _print_warnings(
    statuses: Sequence[StudyStatus], warned: Sequence[Sequence[WarnedRun]]
) -> None:
    for status, runs in zip(statuses, warned, strict=True):
        if runs:
            share = f"{len(runs)} of {counted(status.n_runs, 'run')}"
            example = f"run {runs[0].id}: {runs[0].warnings[0]}"
            click.echo(f"warned: {' / '.join(status.study.labels)}, {share}, such as {example}")


def _print_others(others: Sequence[SweepTitle]) -> None:
    if others:
        click.echo("other sweeps here (a number or name after `bhnbench status` picks one):")
    for other in others[:SHOWN_SWEEPS]:
        click.echo(f"  {other.id}  {other.name}: {', '.join(other.tasks)}")
    if len(others) > SHOWN_SWEEPS:
        click.echo(f"  ... and {len(others) - SHOWN_SWEEPS} that were started earlier")


def _content(
    record: SweepRecord,
    statuses: Sequence[StudyStatus],
    warned: Sequence[Sequence[WarnedRun]],
) -> dict[str, Any]:
    return {
        "sweep": record.name,
        "id": record.id,
        "started_at": record.created_at.isoformat(),
        "resumed_at": record.started_at.isoformat() if _resumed(record) else None,
        "finished_at": record.finished_at.isoformat() if record.finished_at else None,
        "left": sum(status.n_left for status in statuses),
        "studies": [_study(*each) for each in zip(statuses, warned, strict=True)],
    }


def _resumed(record: SweepRecord) -> bool:
    return record.started_at > record.created_at


def _study(status: StudyStatus, warned: Sequence[WarnedRun]) -> dict[str, Any]:
    states = ("done", "running", "pruned", "failed")
    return {
        "task": status.study.labels[0],
        "method": status.study.labels[1],
        "key": status.study.key,
        "metric": status.study.metric,
        "search": {"planned": status.n_trials}
        | {state: status.count(state, phase="search") for state in states},
        "evaluate": {"planned": status.n_seeds}
        | {state: status.count(state, phase="evaluate") for state in states},
        "left": status.n_left,
        "best": status.best.value if status.best else None,
        "configuration": dict(status.configuration),
        "seconds": status.seconds,
        "failures": [
            {
                "run": run.id,
                "phase": run.phase,
                "seed": run.seed,
                "class": run.failure,
                "message": run.message,
            }
            for run in status.failures
        ],
        "warnings": [
            {
                "run": run.id,
                "phase": run.phase,
                "seed": run.seed,
                "messages": list(run.warnings),
            }
            for run in warned
        ],
    }
