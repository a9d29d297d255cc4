"""Options and look-ups that commands share."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bhnbench.errors import BhnbenchError, did_you_mean
from bhnbench.home import Home

if TYPE_CHECKING:
    from rich.console import Console

    from bhnbench.ledger.ledger import Ledger
    from bhnbench.ledger.records import RunRecord, SweepRecord

F = TypeVar("F", bound=Callable[..., Any])


def home_option(command: F) -> F:
    """``--home DIR``."""
    return click.option(
        "--home",
        metavar="DIR",
        help="Where ledger and MLflow data live.  [default: $BHNBENCH_HOME, else ./bhnbench_home]",
        callback=lambda _ctx, _param, value: Home.locate(value),
    )(command)


def any_home_option(command: F) -> F:
    """``--home DIR`` for commands that need no home, so that scripts may pass it everywhere."""
    return click.option("--home", metavar="DIR", hidden=True, expose_value=False)(command)


def json_option(command: F) -> F:
    """``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def print_json(content: object) -> None:
    """To stdout, for programs."""
    click.echo(json.dumps(content, indent=2, default=str))


def console(*, stderr: bool = False) -> Console:
    """A rich console; as wide as the terminal, or as its content where there is none."""
    from rich.console import Console

    out = Console(stderr=stderr, highlight=False)
    return out if out.is_terminal else Console(stderr=stderr, highlight=False, width=160)


def open_ledger(home: Home) -> Ledger:
    """The home's ledger, to read in it what is known."""
    from bhnbench.ledger.ledger import Ledger

    return Ledger(home.ledger, driven=home.may_be_driven)


def find_sweep(ledger: Ledger, reference: str | None) -> SweepRecord:
    """The sweep of that name (the one started last), number or file; without one, the last of all.

    Raises:
        BhnbenchError: there is none.
    """
    if reference is not None and reference.endswith((".yaml", ".yml")):
        reference = _name_in(Path(reference))
    found = ledger.find_sweep(reference)
    if found is not None:
        return found
    names = {sweep.name for sweep in ledger.sweep_titles()}
    if not names:
        raise BhnbenchError("the ledger has no sweep yet; start one with `bhnbench sweep FILE`")
    hint = did_you_mean(str(reference), names)
    raise BhnbenchError(f"no sweep {reference!r} in the ledger; {hint}")


def _name_in(file: Path) -> str:
    """What a sweep file calls its sweep."""
    import yaml

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return str(file)  # which no sweep is called
    return str(content.get("name", file)) if isinstance(content, dict) else str(file)


def find_run(ledger: Ledger, reference: str) -> RunRecord:
    """The run of that number, or whose key begins so.

    Raises:
        BhnbenchError: there is none, or more than one.
    """
    found = ledger.find_runs(reference)
    if len(found) != 1:
        raise BhnbenchError(_not_one(reference, found))
    return found[0]


def _not_one(reference: str, found: Sequence[RunRecord]) -> str:
    if not found:
        return (
            f"no run {reference!r} in the ledger; `bhnbench leaderboard --json` names those of "
            "the last sweep"
        )
    keys = ", ".join(record.key[:12] for record in found[:5])
    return f"{reference!r} fits {len(found)} runs ({keys}, ...); give more of the key"


def duration(seconds: float | None) -> str:
    """Seconds as people read them."""
    if seconds is None:
        return "?"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
