"""`bhnbench doctor`."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bhnbench.cli.options import console, home_option, json_option, print_json
from bhnbench.cli.sweep import set_option
from bhnbench.home import Home
from bhnbench.words import counted

if TYPE_CHECKING:
    from bhnbench.findings import Check, Finding, State

STYLES: dict[State, dict[str, Any]] = {
    "ok": {"fg": "green"},
    "warning": {"fg": "yellow", "bold": True},
    "failed": {"fg": "red", "bold": True},
    "skipped": {"dim": True},
}
NAME_WIDTH = 14  # of the longest name of a check
PIPED_WIDTH = 100


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@set_option
@click.option(
    "--address", metavar="ADDRESS", help="The Ray cluster to look at.  [default: $RAY_ADDRESS]"
)
@json_option
@home_option
def doctor(
    file: Path | None, overrides: Sequence[str], address: str | None, as_json: bool, home: Home
) -> None:
    """Check that everything is in place to run the sweep in FILE, or any sweep.

    Each check takes a line, and one that finds something wrong says how to put it right. Nothing
    is changed, made or downloaded. Exit code 0: a sweep can run; 1: it cannot; 2: FILE has
    mistakes.
    """
    if address:
        os.environ["RAY_ADDRESS"] = address  # before any module of the engine reads it
    from bhnbench.doctor.examination import all_checks
    from bhnbench.doctor.sweep_file import SweepFile

    sweep_file = SweepFile(file, overrides)
    checks = all_checks(sweep_file, home)
    findings = [check.examine() for check in checks] if as_json else _print_all(checks)
    faults = [finding for finding in findings if finding.state == "failed"]
    if as_json:
        print_json({"ready": not faults, "checks": [asdict(finding) for finding in findings]})
    else:
        n_warned = sum(finding.state == "warning" for finding in findings)
        click.echo(f"\n{_conclusion(faults, n_warned)}")
    if faults:
        raise SystemExit(2 if sweep_file.invalid else 1)


def _print_all(checks: Iterable[Check]) -> list[Finding]:
    """Each finding as soon as it is known."""
    out, busy = console(), console(stderr=True)
    width = out.width if out.is_terminal else PIPED_WIDTH
    findings: list[Finding] = []
    for check in checks:
        with busy.status(f"{check.group}: {check.name}"):
            finding = check.examine()
        if not findings or findings[-1].group != finding.group:
            blank = "\n" if findings else ""
            click.echo(blank + click.style(finding.group, bold=True))
        click.echo(_line(finding, width))
        findings.append(finding)
    return findings


def _line(finding: Finding, width: int) -> str:
    """State, name and what was found; below it the fix, if there is one."""
    state = f"  {finding.state:<9}"
    head = f"{state}{finding.name:<{NAME_WIDTH}}  "
    paragraphs = finding.found.split("\n") + ([f"fix: {finding.fix}"] if finding.fix else [])
    filled = [_fill(text, width, len(head)) for text in paragraphs]
    if finding.fix:
        filled[-1] = click.style(filled[-1], bold=True)
    head = head.replace(state, click.style(state, **STYLES[finding.state]), 1)
    return head + "\n".join(filled).lstrip()


def _fill(text: str, width: int, indent: int) -> str:
    margin = indent * " "
    return textwrap.fill(
        text,
        width,
        initial_indent=margin,
        subsequent_indent=margin,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _conclusion(faults: Sequence[Finding], n_warned: int) -> str:
    warned = counted(n_warned, "warning")
    if faults:
        names = "".join(f"\n  {fault.group}: {fault.name}" for fault in faults)
        return f"Not ready: {len(faults)} failed, {warned}.{names}"
    return f"Ready to run, with {warned}." if n_warned else "Ready to run."
