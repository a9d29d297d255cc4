"""A sweep as a Kubernetes manifest or a SLURM script: text to read, change and hand in."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from bhnbench.cluster.shape import Shape, shape_of
from bhnbench.errors import BhnbenchError, did_you_mean
from bhnbench.sweep.document import Sweep

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = {"kuberay": "rayjob.yaml.j2", "slurm": "sweep.sbatch.j2"}
MOUNTED = "/etc/bhnbench/sweep.yaml"  # the sweep file, in the head's container

# A node that is cut off is given up after 3 x (3 + 5) s; with Ray's defaults it takes 65.
# Workers end 20 s after they have lost their head, not after 60.
TIMEOUTS = {
    "RAY_health_check_period_ms": "3000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "20",
}


def render_manifest(kind: str, sweep: Sweep, file: Path, overrides: Sequence[str] = ()) -> str:
    """The text that makes a cluster run a sweep. It holds names of secrets, never their values.

    Args:
        kind: ``kuberay`` (a RayJob with the sweep file in a ConfigMap) or ``slurm`` (a batch
            script, to be handed in from where ``file`` can be found).
        sweep: what ``file`` says, overrides applied.
        file: the sweep file.
        overrides: ``dotted.path=value`` each, passed on to the sweep.

    Raises:
        BhnbenchError: there is no such kind, or the file cannot be read.
    """
    if kind not in TEMPLATES:
        raise BhnbenchError(
            f"--to must be {' or '.join(TEMPLATES)}, but got {kind!r}; "
            f"{did_you_mean(kind, TEMPLATES)}"
        )
    mounted = Path(MOUNTED) if kind == "kuberay" else file
    command = ["bhnbench", "sweep", str(mounted)]
    command += [word for override in overrides for word in ("--set", override)]
    template = _environment().get_template(TEMPLATES[kind])
    return template.render(
        name=sweep.name,
        label=kubernetes_name(sweep),
        command=shlex.join(command),
        document=_read(file),
        shape=shape_of(sweep),
        image=image_for(shape_of(sweep)),
        storage=_folder(sweep.storage),
        ray_version=version("ray"),
        timeouts=TIMEOUTS,
    )


def kubernetes_name(sweep: Sweep) -> str:
    """The sweep's name as Kubernetes allows it, and the start of its digest.

    Equal sweeps have equal names. KubeRay adds to them, and takes 47 characters at most.
    """
    plain = re.sub(r"[^a-z0-9]+", "-", sweep.name.lower())[:38].strip("-")
    return f"{plain}-{sweep.digest[:8]}"


def image_for(shape: Shape) -> str:
    """The container image: ``$BHNBENCH_IMAGE``, else the name that ``infra/image`` gives it."""
    built = f"bhnbench:{version('bhnbench')}-{'gpu' if shape.gpus else 'cpu'}"
    return os.environ.get("BHNBENCH_IMAGE") or built


def _folder(storage: str | None) -> str | None:
    """The shared folder that the sweep keeps progress in; None for object stores and without."""
    return storage if storage and storage.startswith("/") else None


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise BhnbenchError(f"{file}: cannot be read: {error.strerror}") from error


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("bhnbench.cluster"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        comment_start_string="{##",  # shell has ${#...}
    )
    environment.filters |= {"yaml": json.dumps, "block": _block, "shell": shlex.quote}
    return environment


def _block(text: str, indent: int) -> str:
    """A text as YAML's literal block where that keeps every character, else as a quoted string."""
    import yaml

    spaces = " " * indent
    lines = "".join(f"{spaces}{line}" if line.strip() else line for line in text.splitlines(True))
    block = f"|\n{lines}".rstrip("\n")
    try:
        kept = yaml.safe_load(f"text: {block}\n") == {"text": text}
    except yaml.YAMLError:
        kept = False
    return block if kept else json.dumps(text)
