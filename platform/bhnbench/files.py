"""File systems: where a path lies, whether it can be written, whether others see it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

MOUNTS = Path("/proc/mounts")
NETWORK = re.compile(
    r"nfs4?|cifs|smb3|smbfs|ncpfs|afs|ceph|lustre|gpfs|beegfs(_nodev)?|pvfs2|orangefs|panfs|9p"
    r"|glusterfs|fuse\.(?!(fuse-overlayfs|squashfuse|lxcfs|portal|gvfsd-fuse)$).+"
)


@dataclass(frozen=True)
class Mount:
    """A mounted file system."""

    folder: Path
    kind: str  # as the kernel names it

    @property
    def on_a_network(self) -> bool:
        """Whether other machines hold its files; locks of SQLite cannot be relied on there."""
        return NETWORK.fullmatch(self.kind) is not None


def mount_of(path: Path) -> Mount | None:
    """The file system that ``path`` lies on, or would; None where the system does not tell."""
    if not MOUNTS.exists():
        return None
    where = existing(path).resolve()
    mounts = [line.split() for line in MOUNTS.read_text().splitlines()]
    found = [Mount(Path(_plain(words[1])), words[2]) for words in mounts]
    holding = [m for m in found if where == m.folder or m.folder in where.parents]
    longest = max((len(m.folder.parts) for m in holding), default=0)
    return next((m for m in reversed(holding) if len(m.folder.parts) == longest), None)


def existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    return next(p for p in (path, *path.parents) if p.exists() or p.is_symlink())


def why_not_writable(folder: Path) -> str | None:
    """What keeps a file from being made in ``folder``, or where that would be; None: nothing."""
    nearest = existing(folder)
    if not nearest.is_dir():
        return f"{nearest} is a file, not a folder"
    try:
        with TemporaryFile(dir=nearest):
            return None
    except OSError as error:
        return f"{nearest}: {error.strerror}"


def _plain(field: str) -> str:
    """A path as the kernel writes it: blanks and the like are octal."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
