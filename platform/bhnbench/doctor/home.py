"""The home: a folder that can be written, on a disk of its own with some room."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from bhnbench.files import existing, mount_of, why_not_writable
from bhnbench.findings import Check, Verdict, failed, ok, skipped, warning
from bhnbench.home import Home
from bhnbench.tracking.addresses import parse

GROUP = "Home"
FEW_MB, TOO_FEW_MB = 2000, 100
ANOTHER = "name another with --home or $BHNBENCH_HOME"


def checks(home: Home) -> Iterator[Check]:
    """Where a sweep writes on this machine."""
    yield Check(GROUP, "folder", partial(writable, home))
    yield Check(GROUP, "free disk", partial(free_disk, home))
    yield Check(GROUP, "file system", partial(file_system, home))
    yield Check(GROUP, "other sweeps", partial(other_sweeps, home))
    yield Check(GROUP, "secret files", secret_files)


def writable(home: Home) -> Verdict:
    """A file can be made there."""
    reason = why_not_writable(home.folder)
    if reason is not None:
        return failed(f"{home.folder} cannot be written: {reason}", f"allow it, or {ANOTHER}")
    made = "" if home.folder.exists() else " (the first sweep makes it)"
    return ok(f"{home.folder}{made}")


def free_disk(home: Home) -> Verdict:
    """Room for ledger, MLflow's data, figures and the progress of runs."""
    megabytes = shutil.disk_usage(existing(home.folder)).free / 1e6
    said = f"{megabytes / 1e3:.1f} GB free" if megabytes >= 1e3 else f"{megabytes:.0f} MB free"
    fix = f"make room, or {ANOTHER}"
    if megabytes < TOO_FEW_MB:
        return failed(f"{said}; a sweep needs {TOO_FEW_MB} MB at least", fix)
    if megabytes < FEW_MB:
        return warning(f"{said}; a large sweep may fill that", fix)
    return ok(said)


def file_system(home: Home) -> Verdict:
    """SQLite's locks cannot be relied on across a network."""
    files = {"$BHNBENCH_LEDGER": _sqlite_file(home.ledger)}
    files["$MLFLOW_TRACKING_URI"] = _sqlite_file(home.tracking_uri)
    mounts = {name: mount_of(path) for name, path in files.items() if path is not None}
    if not mounts:
        return skipped("ledger and MLflow's data are on servers")
    known = {name: mount for name, mount in mounts.items() if mount is not None}
    if not known:
        return skipped("this system does not tell")
    remote = {name: mount for name, mount in known.items() if mount.on_a_network}
    if not remote:
        return ok(f"{' and '.join(sorted({m.kind for m in known.values()}))}, of this machine")
    paths = " and ".join(str(files[name]) for name in remote)
    kinds = " and ".join(sorted({f"{m.kind} ({m.folder})" for m in remote.values()}))
    found = f"SQLite must not lie on a network file system, but {paths} would, on {kinds}"
    fix = f"take a local folder with --home, or servers with {' and '.join(remote)}"
    return (failed if "$BHNBENCH_LEDGER" in remote else warning)(found, fix)


def _sqlite_file(address: str) -> Path | None:
    """The file of an SQLite URL; None of others, which other checks look at."""
    url = parse(address)
    if url is None or url.get_backend_name() != "sqlite" or not url.database:
        return None
    return Path(url.database).absolute()


def other_sweeps(home: Home) -> Verdict:
    """Only one driver may hold a home."""
    if os.environ.get("BHNBENCH_LEDGER"):
        return skipped("the ledger is elsewhere, and keeps drivers apart")
    if not home.folder.is_dir() or not home.may_be_driven:
        return ok("none runs here")
    fix = f"wait for it (`bhnbench status` shows where it is), or {ANOTHER}"
    return warning("a sweep runs here now, and a home takes one at a time", fix)


def secret_files() -> Verdict:
    """Files that hold passwords or tokens are for their owner alone."""
    files = [path for path in _secret_paths() if path.is_file()]
    open_ = [path for path in files if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)]
    if open_:
        paths = " ".join(map(str, open_))
        return warning(f"others on this machine may read {paths}", f"chmod 600 {paths}")
    names = ", ".join(str(path) for path in files)
    return ok(f"mode 600: {names}") if files else skipped("there are none")


def _secret_paths() -> Iterator[Path]:
    """Ray's token, PostgreSQL's passwords, MLflow's credentials."""
    yield Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    yield Path(os.environ.get("PGPASSFILE") or Path.home() / ".pgpass")
    yield Path.home() / ".mlflow" / "credentials"
