"""`bhnbench leaderboard`."""

from __future__ import annotations

import click

from bhnbench.cli.options import find_sweep, home_option, json_option, open_ledger
from bhnbench.home import Home


@click.command()
@click.argument("sweep", required=False)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["table", "markdown", "csv", "json"]),
    default="table",
    show_default=True,
)
@click.option("--metric", metavar="NAME", help="Rank by this metric.  [default: the sweep's]")
@json_option
@home_option
def leaderboard(
    sweep: str | None, format_: str, metric: str | None, as_json: bool, home: Home
) -> None:
    """Rank the methods of SWEEP, a name or number, per task (default: started last)."""
    from bhnbench.leaderboard.ranking import build_leaderboard
    from bhnbench.leaderboard.tables import render

    with open_ledger(home) as ledger:
        board = build_leaderboard(ledger, find_sweep(ledger, sweep), metric)
    click.echo(render(board, "json" if as_json else format_))
