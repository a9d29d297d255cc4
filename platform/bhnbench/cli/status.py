"""`bhnbench status`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from bhnbench.cli.options import console, find_sweep, home_option, json_option, print_json
from bhnbench.home import Home

if TYPE_CHECKING:
    from bhnbench.ledger.records import SweepRecord
    from bhnbench.status import StudyStatus

SHOWN_FAILURES = 20


@click.command()
@click.argument("sweep", required=False)
@json_option
@home_option
def status(sweep: str | None, as_json: bool, home: Home) -> None:
    """Show where each study of SWEEP, a name or number, stands (default: started last)."""
    from bhnbench.ledger.ledger import Ledger
    from bhnbench.status import study_statuses

    with Ledger(home.ledger) as ledger:
        record = find_sweep(ledger, sweep)
        statuses = study_statuses(ledger, record.studies, record.n_seeds)
        others = [other for other in ledger.sweeps() if other.id != record.id]
    if as_json:
        print_json(_content(record, statuses))
        return
    from bhnbench.cli.progress import progress_table

    console().print(progress_table(statuses, _headline(record, statuses)))
    _print_failures(statuses)
    if others:
        click.echo("other sweeps here (a number or name after `bhnbench status` picks one):")
    for other in others:
        tasks = ", ".join(dict.fromkeys(study.spec.labels[0] for study in other.studies))
        click.echo(f"  {other.id}  {other.name}: {tasks}")


def _headline(record: SweepRecord, statuses: Sequence[StudyStatus]) -> str:
    left = sum(status.n_left for status in statuses)
    state = "complete" if not left else f"{left} runs left"
    started = f"started {record.started_at:%Y-%m-%d %H:%M} UTC"
    return f"{record.name} (sweep {record.id}): {state}, {started}"


def _print_failures(statuses: Sequence[StudyStatus]) -> None:
    failures = [(status.study, run) for status in statuses for run in status.failures]
    for study, run in failures[:SHOWN_FAILURES]:
        what = "search" if run.spec.phase == "search" else f"seed {run.spec.seed}"
        place = f"{' / '.join(study.labels)}, {what} (run {run.id})"
        click.echo(f"failed: {place}: {run.failure}: {run.message}")
    if len(failures) > SHOWN_FAILURES:
        click.echo(f"... and {len(failures) - SHOWN_FAILURES} more failures; --json lists all")


def _content(record: SweepRecord, statuses: Sequence[StudyStatus]) -> dict[str, Any]:
    return {
        "sweep": record.name,
        "id": record.id,
        "started_at": record.started_at.isoformat(),
        "finished_at": record.finished_at.isoformat() if record.finished_at else None,
        "left": sum(status.n_left for status in statuses),
        "studies": [_study(status) for status in statuses],
    }


def _study(status: StudyStatus) -> dict[str, Any]:
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
                "phase": run.spec.phase,
                "seed": run.spec.seed,
                "class": run.failure,
                "message": run.message,
            }
            for run in status.failures
        ],
    }
