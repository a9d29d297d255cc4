"""Where Ray keeps sockets, logs and objects on this machine."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from bhnbench.findings import Verdict, failed, ok, warning

SOCKET = "ray/session_2026-01-01_00-00-00_000000_{pid}/sockets/plasma_store"
SOCKET_LENGTH = 103 if sys.platform == "darwin" else 107  # the system's limit
FULL = 0.95  # of a disk; beyond that Ray stores nothing on it


def temp_folder() -> Verdict:
    """Ray's sockets have long paths, and its logs and objects need room."""
    folder = Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp")
    pid_max = Path("/proc/sys/kernel/pid_max")
    pid = pid_max.read_text().strip() if pid_max.exists() else "99999"
    length = len(os.fsencode(folder / SOCKET.format(pid=pid)))
    fix = "export RAY_TMPDIR=/tmp, or another short path on a disk with room"
    if length > SOCKET_LENGTH:
        too_long = f"{folder} is {length - SOCKET_LENGTH} characters too long for Ray's sockets"
        return failed(too_long, fix)
    if not folder.is_dir():
        return failed(f"{folder} is no folder", fix)
    usage = shutil.disk_usage(folder)
    if usage.used > FULL * (usage.used + usage.free):
        return warning(f"the disk of {folder} is full to more than {FULL:.0%}", fix)
    return ok(f"{folder}, {usage.free / 1e9:.1f} GB free")
