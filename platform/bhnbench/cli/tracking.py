"""`bhnbench ui` and `bhnbench sync`."""

from __future__ import annotations

import os
import socket
import sys
from functools import partial
from pathlib import Path

import click

from bhnbench.cli.options import find_sweep, home_option, json_option, print_json
from bhnbench.errors import BhnbenchError
from bhnbench.home import Home


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True)
@home_option
def ui(port: int, home: Home) -> None:
    """Serve the MLflow UI over this home, to this machine alone, until Ctrl-C."""
    if home.tracking_uri.startswith(("http://", "https://")):
        raise BhnbenchError("MLFLOW_TRACKING_URI names a server; open its address in a browser")
    if home.tracking_uri.startswith("sqlite:///"):
        file = Path(home.tracking_uri.removeprefix("sqlite:///"))
        if not file.exists():
            raise BhnbenchError(f"{file}: no MLflow data yet; run a sweep, or `bhnbench sync`")
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise BhnbenchError(f"port {port} is taken; name another one with --port")
    click.echo(f"MLflow UI: http://127.0.0.1:{port}  (Ctrl-C ends it)", err=True)
    click.echo("figures: experiment -> a study -> Artifacts -> figures", err=True)
    environment = os.environ | {
        "MLFLOW_BACKEND_STORE_URI": home.tracking_uri,  # not an argument: it may hold a password
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # 8 processes and 1.3 GiB less
    }
    arguments = ["-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    arguments += ["--workers", "1", "--artifacts-destination", str(home.artifacts)]
    os.execve(sys.executable, [sys.executable, *arguments], environment)


@click.command()
@click.argument("sweep", required=False)
@json_option
@home_option
def sync(sweep: str | None, as_json: bool, home: Home) -> None:
    """Send MLflow what it does not have yet of SWEEP (default: of all sweeps)."""
    from bhnbench.leaderboard.plots import draw_figures
    from bhnbench.ledger.ledger import Ledger
    from bhnbench.tracking.sync import sync as send

    with Ledger(home.ledger) as ledger, home.locked():
        sweeps = [find_sweep(ledger, sweep)] if sweep else ledger.sweeps()
        draw = partial(draw_figures, ledger)
        reports = [
            (record, send(ledger, record, home.tracking_uri, home.artifacts, draw))
            for record in reversed(sweeps)
        ]
    if as_json:
        print_json([{"sweep": s.name, "id": s.id, "sent": r.sent} for s, r in reports])
        return
    for record, report in reports:
        counts = f"{report.sent} sent, {report.already} there already"
        click.echo(f"{record.name} (sweep {record.id}): {counts}")
