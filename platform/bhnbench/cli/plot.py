"""`bhnbench plot`."""

from __future__ import annotations

from pathlib import Path

import click

from bhnbench.cli.options import find_sweep, home_option, json_option, open_ledger, print_json
from bhnbench.errors import BhnbenchError
from bhnbench.home import Home

FORMATS = ("png", "svg")


@click.command()
@click.argument("sweep", required=False)
@click.option("--out", metavar="DIR", help="Where they go.  [default: figures/ in the home]")
@click.option(
    "--format",
    "formats",
    type=click.Choice(FORMATS),
    multiple=True,
    default=FORMATS,
    show_default=True,
    help="May be given twice.",
)
@json_option
@home_option
def plot(
    sweep: str | None, out: str | None, formats: tuple[str, ...], as_json: bool, home: Home
) -> None:
    """Draw the figures of SWEEP, a name or number, from its runs (default: started last)."""
    from bhnbench.leaderboard.plots import save_figures

    with open_ledger(home) as ledger:
        record = find_sweep(ledger, sweep)
        folder = Path(out).expanduser() if out else home.figures_of(record.name, record.id)
        paths = save_figures(ledger, record, folder, tuple(dict.fromkeys(formats)))
    if not paths:
        raise BhnbenchError(f"sweep {record.name!r} has no evaluation run that is done yet")
    print_json([str(path) for path in paths]) if as_json else click.echo(
        "\n".join(map(str, paths))
    )
