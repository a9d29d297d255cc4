"""`bhnbench submit`, `jobs`, `logs` and `stop`: sweeps as jobs of a Ray cluster."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from bhnbench.cli.options import (
    F,
    any_home_option,
    console,
    duration,
    json_option,
    print_json,
)  # fmt: skip
from bhnbench.cli.sweep import file_argument, set_option
from bhnbench.errors import JobError
from bhnbench.interrupts import interrupts_deferred
from bhnbench.words import counted, mebibytes, one_line

if TYPE_CHECKING:
    from bhnbench.engine.jobs import Job, Jobs
    from bhnbench.engine.shipping import Shipment

SHOWN = 5  # of the files that are left out
LOCAL_HEAD = "http://127.0.0.1:8265"


def _use(_ctx: click.Context, _param: click.Parameter, address: str) -> str:
    """Tell the engine that this process has no cluster of its own, so needs no token for one."""
    os.environ["RAY_ADDRESS"] = address
    return address.rstrip("/")


def address_option(command: F) -> F:
    """``--address URL``."""
    return click.option(
        "--address",
        metavar="URL",
        envvar="RAY_API_SERVER_ADDRESS",
        default=LOCAL_HEAD,
        help=f"The cluster's dashboard.  [default: $RAY_API_SERVER_ADDRESS, else {LOCAL_HEAD}]",
        callback=_use,
    )(command)


job_argument = click.argument("job", metavar="[ID]", default="last")


@click.command()
@file_argument
@set_option
@address_option
@click.option(
    "--home",
    metavar="DIR",
    help="The home on the cluster.  [default: $BHNBENCH_HOME there, else ~/bhnbench_home there]",
)
@click.option(
    "--cluster-env",
    is_flag=True,
    help="Use the cluster's own BHNBENCH_LEDGER and MLFLOW_TRACKING_URI, send none.",
)
@click.option(
    "--to",
    type=click.Choice(["kuberay", "slurm"]),
    help="With --print: a RayJob manifest, or a batch script.",
)
@click.option(
    "--print", "only_print", is_flag=True, help="Print what --to names, and submit nothing."
)
@json_option
def submit(
    file: Path,
    overrides: Sequence[str],
    address: str,
    home: str | None,
    cluster_env: bool,
    to: str | None,
    only_print: bool,
    as_json: bool,
) -> None:
    """Run the sweep in FILE as a job of a Ray cluster; prints the job's id at once.

    The job takes the sweep's packages along, goes on when its driver is lost, and starts from what
    is in the ledger: submit it again after a stop, or when the cluster was lost.
    """
    if (to is not None) != only_print:
        raise click.UsageError("--to and --print go together: what is printed is yours to submit")
    with interrupts_deferred():
        from bhnbench.sweep.document import read_sweep

    document = read_sweep(file, overrides)
    if to is not None:
        from bhnbench.cluster.manifests import render_manifest

        click.echo(render_manifest(to, document, file, overrides), nl=False)
        return
    with interrupts_deferred():
        from bhnbench.engine.environment import job_environment
        from bhnbench.engine.shipping import gather

    environment = job_environment(os.environ, home=home, cluster_env=cluster_env)
    cluster = _connect(address)
    shipment = gather(document)
    with TemporaryDirectory(prefix="bhnbench-") as folder:
        archive = Path(folder) / "job.zip"
        size = shipment.pack(archive)
        id_ = cluster.submit(document.name, archive, environment)
    _tell_taken(shipment, size, environment)
    click.echo(f"follow it with: {_command('logs', id_, '--follow', address=address)}", err=True)
    if as_json:
        print_json({"id": id_, "sweep": document.name, "address": cluster.address})
    else:
        click.echo(id_)


def _connect(address: str) -> Jobs:
    """The jobs of a cluster; warns where anybody could start some."""
    from bhnbench.engine.head import identify

    headers = identify(address)
    if not headers:
        click.echo(
            f"warning: {address} asks for no token: whoever reaches it can run programs on the "
            "cluster; start its head with RAY_AUTH_MODE=token",
            err=True,
        )
    try:
        with interrupts_deferred():
            from bhnbench.engine.jobs import Jobs
    except ModuleNotFoundError as error:
        raise JobError(
            f"jobs need the Python package {error.name}; pip install 'bhnbench[cluster]'"
        ) from None
    return Jobs(address, headers)


def _tell_taken(shipment: Shipment, size: int, environment: Mapping[str, str]) -> None:
    files = f"{counted(len(shipment.files), 'file')}, {mebibytes(size)} packed"
    click.echo(f"took along: {', '.join(shipment.packages)} ({files})", err=True)
    if shipment.left_out:
        rest = len(shipment.left_out) - SHOWN
        more = f" and {rest} more" if rest > 0 else ""
        click.echo(f"left out as data: {', '.join(shipment.left_out[:SHOWN])}{more}", err=True)
    told = " ".join(f"{name}={value}" for name, value in environment.items()) or "nothing"
    click.echo(f"told the job: {told}; all else is as the cluster has it", err=True)


def _command(*words: str, address: str) -> str:
    """What to type next."""
    at = [] if address == LOCAL_HEAD else ["--address", address]
    return shlex.join(["bhnbench", *words, *at])


@click.command()
@address_option
@json_option
@any_home_option
def jobs(address: str, as_json: bool) -> None:
    """List the sweeps that were submitted to a Ray cluster, the last one first."""
    found = _connect(address).all()
    if as_json:
        print_json([_content(job) for job in found])
        return
    if not found:
        click.echo(f"no sweep was submitted to {address}")
        return
    from rich.table import Table

    table = Table("id", "sweep", "status", "started", "duration")
    for job in found:
        started = (
            f"{datetime.fromtimestamp(job.started_at, UTC):%Y-%m-%d %H:%M} UTC"
            if job.started_at
            else ""
        )
        table.add_row(job.id, job.sweep, _status(job), started, duration(job.seconds))
    console().print(table, soft_wrap=True)


@click.command()
@job_argument
@address_option
@click.option(
    "--follow", "-f", is_flag=True, help="Go on until the job ends; Ctrl-C leaves it running."
)
@any_home_option
def logs(job: str, address: str, follow: bool) -> None:
    """Print what the job ID has printed; the beginning of an id is enough, `last` is the last one.

    With --follow, a job that failed gives its own exit code.
    """
    cluster = _connect(address)
    found = cluster.find(job)
    if not follow:
        click.echo(cluster.logs(found), nl=False)
        return
    ended = cluster.follow(found, lambda text: click.echo(text, nl=False))
    click.echo(f"{ended.id}: {_status(ended)}", err=True)
    if ended.status == "failed" and ended.exit_code is None:  # its driver never ran
        raise JobError(f"{ended.id}: {one_line(ended.message)}")
    if ended.status == "failed":
        raise SystemExit(ended.exit_code or 1)


@click.command()
@job_argument
@address_option
@any_home_option
def stop(job: str, address: str) -> None:
    """End the job ID once it has saved what it is at; submitting its sweep again goes on there."""
    cluster = _connect(address)
    found = cluster.find(job)
    if found.ended:
        raise JobError(f"{found.id}: has ended already: {_status(found)}")
    ended = cluster.stop(found)
    if not ended.ended:
        raise JobError(f"{ended.id}: was told to stop, but is still {ended.status}; look again")
    click.echo(f"{ended.id}: {_status(ended)}; submit the sweep again to go on")


def _status(job: Job) -> str:
    """How a job stands, in a word or two."""
    if job.exit_code == 3:
        return "finished, some runs failed"
    return f"{job.status} (exit code {job.exit_code})" if job.exit_code else job.status


def _content(job: Job) -> dict[str, Any]:
    times = {"started_at": job.started_at, "ended_at": job.ended_at}
    told = {k: datetime.fromtimestamp(t, UTC).isoformat() if t else None for k, t in times.items()}
    return {
        "id": job.id,
        "sweep": job.sweep,
        "status": job.status,
        "exit_code": job.exit_code,
        "message": job.message,
        **told,
        "seconds": job.seconds,
    }
