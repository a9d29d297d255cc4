"""A run's story in sentences: from the journal, or, where that is silent, from the ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from bhnbench.cli.options import duration
from bhnbench.words import counted

if TYPE_CHECKING:
    from bhnbench.ledger.records import RunRecord
    from bhnbench.runs import Point
    from bhnbench.specs import EarlyTermination, StudySpec

Happening = Mapping[str, Any]  # an event of the journal

ENDS = frozenset({"done", "pruned", "failed", "quarantined"})


def chapters(events: Iterable[Happening], key: str) -> list[Happening]:
    """What a reader needs, out of a journal's events: the run's own, and those of its sweeps.

    A sweep's end is told where it left the run under way; where its driver died, nobody could
    write that down, so an event ``vanished`` stands for it.
    """
    told = list(events)
    ours = {_sitting(event) for event in told if event.get("run") == key}
    studies = {event.get("study") for event in told if event.get("run") == key}
    story: list[Happening] = []
    under_way: Happening | None = None  # handed out, and no end of it seen
    for event in told:
        kind = event["event"]
        if event.get("run") == key:
            story.append(event)
            under_way = event if kind in ("started", "retried") else under_way
            under_way = None if kind in ENDS else under_way
        elif kind == "sweep_ended" and under_way and _sitting(event) == _sitting(under_way):
            story.append(event)
            under_way = None
        elif kind == "sweep_started":
            if under_way and event["driver"] != under_way["driver"]:
                story.append({**under_way, "event": "vanished", "time": event["time"]})
                under_way = None
            if _sitting(event) in ours:
                story.append(event)
        elif kind == "planned" and _sitting(event) in ours and event.get("study") in studies:
            story.append(event)
    return story


def _sitting(event: Happening) -> tuple[object, object]:
    """One driver at work on one sweep."""
    return event.get("driver"), event.get("sweep_id")


def from_ledger(run: RunRecord, points: Sequence[Point]) -> list[Happening]:
    """The last attempt as the ledger knows it, in the journal's words."""
    host = run.provenance.get("host")
    story: list[Happening] = []
    if run.started_at:
        story.append({"event": "started", "time": run.started_at, "attempt": run.attempts})
    if run.finished_at and run.state != "running":
        end = {"event": run.state, "time": run.finished_at, "host": host}
        end |= {"seconds": run.cost.seconds or None, "failure": run.failure}
        end |= {"message": run.message, "rung": points[-1][0] if points else None}
        story.append(end)
    return story


def tell(story: Iterable[Happening]) -> Iterator[str]:
    """One line an event: when, and what; what is said again and again is said once."""
    last = None
    for event in story:
        sentence = SENTENCES.get(event["event"], _anything)(event)
        if sentence != last:
            yield f"{_time(event['time'])}  {sentence}"
        last = sentence


def conclusion(run: RunRecord, studies: Sequence[StudySpec] = ()) -> str:
    """Where that leaves the run, and what happens next.

    Args:
        run: as it stands.
        studies: that it serves.
    """
    if run.state == "done":
        return "It is done: a sweep that asks for it takes this result, and nothing runs it again."
    if run.state == "pruned":
        rules = (s.search.early_termination for s in studies if s.search)
        why = next((_rule(rule) for rule in rules if rule is not None), "")
        return f"It was stopped early{why}; it has no final score, so it cannot be chosen."
    if run.state == "running":
        return "It is under way."
    if run.settled:
        return f"It failed for good: {run.failure} would happen again, so it is not tried again."
    if run.failure == "interrupted":
        why = run.message or "no reason was noted"
        return f"It was interrupted ({why}): the next `bhnbench sweep` tries it again."
    return "It failed in a way that may pass: the next `bhnbench sweep` tries it again."


def _rule(early: EarlyTermination) -> str:
    steps = ", ".join(str(early.min_iter * early.eta**k) for k in range(3))
    return f", since at steps {steps}, ... only the best 1 in {early.eta} of its study go on"


def _time(when: str | datetime) -> str:
    time = datetime.fromisoformat(when) if isinstance(when, str) else when
    return f"{time:%Y-%m-%d %H:%M:%S}"


def _sweep(event: Happening) -> str:
    return f"sweep {event.get('sweep', '?')} ({event.get('sweep_id', '?')})"


def _sweep_started(event: Happening) -> str:
    verb = "resumed" if event.get("resumed") else "started"
    return f"{_sweep(event)} {verb} by driver {event['driver']}"


def _planned(event: Happening) -> str:
    parts = counted(event.get("trials", 0), "trial"), counted(event.get("seeds", 0), "seed")
    return f"planned {event.get('study')}: {parts[0]} and {parts[1]}"


def _purpose(event: Happening) -> str:
    trial, study = event.get("trial"), event.get("study")
    what = "an evaluation" if trial is None else f"trial {trial}"
    return f" as {what} of {study}" if study else ""


def _started(event: Happening) -> str:
    attempt = event.get("attempt") or 1
    which = f", attempt {attempt}" if attempt > 1 else ""
    asked = amounts(event.get("resources") or {})
    return f"started{_purpose(event)}{_where(event)}{which}" + (f", with {asked}" if asked else "")


def _where(event: Happening) -> str:
    host, device = event.get("host"), event.get("device")
    on = f" on {host}" if host else ""
    return f"{on} ({device})" if on and device and device != "cpu" else on


def _after(event: Happening, word: str) -> str:
    seconds = event.get("seconds")
    return "" if seconds is None else f" {word} {duration(float(seconds))}"


def _done(event: Happening) -> str:
    return f"done{_after(event, 'in')}{_where(event)}"


def _pruned(event: Happening) -> str:
    value, cutoff, rung = event.get("value"), event.get("cutoff"), event.get("rung")
    where = f" at step {rung}" if rung is not None else ""
    beaten = "" if value is None else f": its value there was {_number(value)}"
    needed = "" if value is None or cutoff is None else f", to go on it needed {_number(cutoff)}"
    return f"stopped early{where}{beaten}{needed}"


def _number(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, int | float) else str(value)


def _reason(event: Happening) -> str:
    failure, message = event.get("failure"), event.get("message")
    return ": ".join(str(part) for part in (failure, message) if part) or "no reason was noted"


def _failed(event: Happening) -> str:
    return f"failed{_after(event, 'after')}{_where(event)} ({_reason(event)})"


def _retried(event: Happening) -> str:
    change = more(event.get("before") or {}, event.get("resources") or {})
    again = "to be tried again" + (f" with {change}" if change else "")
    return f"failed{_where(event)} ({_reason(event)}), {again}"


def _vanished(event: Happening) -> str:
    return f"its driver {event['driver']} left no word: killed, or its machine went down"


def _taken_over(event: Happening) -> str:
    return f"taken over by driver {event['driver']} from {event.get('source', 'one that is gone')}"


def _waiting(event: Happening) -> str:
    holder = event.get("source", "another driver")
    return f"{_sweep(event)} waits for it: {holder} has it under way"


def _cached(event: Happening) -> str:
    source = f" by {event['source']}" if event.get("source") else ""
    known = f"{event.get('state', 'known')} already{source}"
    return f"{_sweep(event)} asked for it{_purpose(event)}: {known}, so it was not run again"


def _quarantined(event: Happening) -> str:
    return f"quarantined, so not tried again: {event.get('reason', 'no reason was noted')}"


def _refused(event: Happening) -> str:
    return (
        f"a late result was refused: {event.get('reason', 'the run belonged to another driver')}"
    )


def _sweep_ended(event: Happening) -> str:
    how = event.get("how", "ended")
    message = f": {event['message']}" if event.get("message") else ""
    return f"{_sweep(event)} ended while it was under way ({how}{message})"


def _anything(event: Happening) -> str:
    """An event of a newer bhnbench."""
    known = ("time", "event", "run", "driver", "sweep", "sweep_id")
    return f"{event['event']}: " + ", ".join(
        f"{k} {v}" for k, v in event.items() if k not in known
    )


SENTENCES: dict[str, Callable[[Happening], str]] = {
    "sweep_started": _sweep_started,
    "planned": _planned,
    "cached": _cached,
    "started": _started,
    "done": _done,
    "pruned": _pruned,
    "failed": _failed,
    "retried": _retried,
    "quarantined": _quarantined,
    "taken_over": _taken_over,
    "waiting": _waiting,
    "refused": _refused,
    "vanished": _vanished,
    "sweep_ended": _sweep_ended,
}


def more(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """What is asked for now instead of what was, such as "4 GiB instead of 2 GiB (2x)"."""
    changed = [name for name in after if after[name] != before.get(name)]
    return ", ".join(_change(name, before.get(name) or 0, after[name]) for name in changed)


def _change(name: str, old: float, new: float) -> str:
    instead = f" instead of {amount(name, old)} ({new / old:.3g}x)" if old else ""
    return f"{amount(name, new)}{instead}"


def amounts(resources: Mapping[str, Any]) -> str:
    """Resources in words, unless it is the one core that every run has."""
    if not any(value for name, value in resources.items() if (name, value) != ("cpu", 1)):
        return ""
    return ", ".join(amount(name, value) for name, value in resources.items() if value)


def amount(name: str, value: float) -> str:
    """A number and its unit."""
    return f"{value:.3g} {'GiB' if name == 'memory' else name}"
