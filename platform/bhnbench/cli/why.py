"""`bhnbench why`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import click

from bhnbench.cli.options import find_run, home_option, json_option, open_ledger, print_json
from bhnbench.cli.story import Happening, chapters, conclusion, from_ledger, tell
from bhnbench.home import Home

if TYPE_CHECKING:
    from bhnbench.ledger.ledger import Ledger
    from bhnbench.ledger.records import RunRecord, StudyRecord, SweepRecord
    from bhnbench.specs import StudySpec


@click.command()
@click.argument("run")
@json_option
@home_option
def why(run: str, as_json: bool, home: Home) -> None:
    """Tell the story of RUN: its number, or the beginning of its key.

    Who asked for it, when and where it ran, and what was decided about it, from the journal that
    drivers keep in the home.
    """
    from bhnbench.journal import read_events

    with open_ledger(home) as ledger:
        record = find_run(ledger, run)
        places = _places(ledger, record)
        points = ledger.points(record.id)
    story = chapters(read_events(home.journal, record.key, sweeps=True), record.key)
    from_journal = bool(story)
    story = story or from_ledger(record, points)
    if as_json:
        print_json(_content(record, places, story, from_journal=from_journal))
    else:
        _print(record, places, story, home if not from_journal else None)


class _Place(NamedTuple):
    """What the run is for."""

    study: StudySpec
    text: str


def _places(ledger: Ledger, run: RunRecord) -> list[_Place]:
    """Each trial and each evaluation that the run serves."""
    names = run.spec.task.name, run.spec.method.name
    found = []
    for sweep in ledger.sweeps():
        same = [s for s in sweep.studies if (s.spec.task.name, s.spec.method.name) == names]
        for study in same:
            purpose = _purpose(ledger, run, sweep, study)
            labels = " / ".join(study.spec.labels)
            text = f"{purpose} of {labels} in sweep {sweep.name} ({sweep.id})"
            found += [_Place(study.spec, text)] if purpose else []
    return found


def _purpose(ledger: Ledger, run: RunRecord, sweep: SweepRecord, study: StudyRecord) -> str:
    from bhnbench.status import study_statuses

    if run.spec.phase == "search":
        trials = ledger.trials(study.id or 0, run.id)
        numbers = [str(trial.number) for trial in trials if trial.number < study.n_trials]
        return f"trial {', '.join(numbers)}" if numbers else ""
    (status,) = study_statuses(ledger, [study], sweep.n_seeds)
    counts = run.key in {evaluation.key for evaluation in status.evaluations}
    return f"seed {run.spec.seed}" if counts else ""


def _print(
    record: RunRecord, places: Sequence[_Place], story: Sequence[Happening], silent: Home | None
) -> None:
    spec = record.spec
    click.echo(f"run {record.id}  {record.key}")
    click.echo(f"{spec.method.name} on {spec.task.name}, phase {spec.phase}, seed {spec.seed}")
    for place in places:
        click.echo(f"serves {place.text}")
    if not places:
        click.echo("serves no sweep in this ledger as it stands: another configuration was chosen")
    click.echo("")
    if silent is not None:
        click.echo(f"The journal in {silent.journal} does not tell of it: it ran in another home,")
        click.echo(
            "before there was a journal, or too long ago. The ledger knows its last attempt:"
        )
    for line in tell(story):
        click.echo(line)
    click.echo(f"\n{conclusion(record, [place.study for place in places])}")
    click.echo(f"Times are UTC. Everything about it: bhnbench show {record.id}")


def _content(
    record: RunRecord, places: Sequence[_Place], story: Sequence[Happening], *, from_journal: bool
) -> dict[str, object]:
    return {
        "run": record.id,
        "key": record.key,
        "state": record.state,
        "failure": record.failure,
        "attempts": record.attempts,
        "serves": [place.text for place in places],
        "source": "journal" if from_journal else "ledger",
        "events": story,
        "story": list(tell(story)),
        "conclusion": conclusion(record, [place.study for place in places]),
    }
