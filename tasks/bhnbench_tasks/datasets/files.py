"""Data files: from the user's folder, else from a per-user cache that is filled by download."""

from __future__ import annotations

import gzip
import hashlib
import os
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bhnbench.errors import DataError

FOLDER_VARIABLE = "BHNBENCH_DATA"
_TIMEOUT_SECONDS = (10, 60)  # to connect, to wait for the next bytes


@dataclass(frozen=True)
class GzipFile:
    """A published file. The digest is of the decompressed bytes: mirrors compress differently."""

    path: str  # below a data folder; its last part is the name below a mirror
    sha256: str


def cache_folder() -> Path:
    """Where downloads are kept for this user."""
    import pooch

    return Path(pooch.os_cache("bhnbench"))


def read(file: GzipFile, mirrors: Sequence[str]) -> bytes:
    """The decompressed content, checked against the digest.

    Raises:
        DataError: the file is nowhere, or its content is wrong.
    """
    cached = cache_folder() / file.path
    folder = os.environ.get(FOLDER_VARIABLE)
    for path in ([Path(folder).expanduser() / file.path] if folder else []) + [cached]:
        if path.is_file():
            return _verified(path, file, advice="delete it and run again to download it")
    return download(file, mirrors, cached)


def download(file: GzipFile, mirrors: Sequence[str], target: Path) -> bytes:
    """Fetch ``file`` from the first mirror that has it and keep it at ``target``.

    Raises:
        DataError: no mirror gave the right content; says where to put the file by hand.
    """
    reasons = []
    for mirror in mirrors:
        try:
            return _fetch(mirror + target.name, file, target)
        except (OSError, DataError) as error:
            reasons.append(_reason(mirror + target.name, error))
    raise DataError(
        f"{file.path}: not on this machine, and cannot be downloaded ({'; '.join(reasons)}); "
        f"set {FOLDER_VARIABLE} to a folder that holds {file.path}, or put it at {target}"
    )


def _fetch(url: str, file: GzipFile, target: Path) -> bytes:
    import pooch

    fetch = pooch.HTTPDownloader(timeout=_TIMEOUT_SECONDS)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        part = Path(folder) / target.name
        fetch(url, str(part), None)
        content = _verified(part, file, advice="try another mirror", name=url)
        part.replace(target)  # atomic: other processes see the whole file or none
    return content


def _verified(path: Path, file: GzipFile, *, advice: str, name: str | None = None) -> bytes:
    name = name or str(path)
    try:
        compressed = path.read_bytes()
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror}; allow it") from error
    try:
        content = gzip.decompress(compressed)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{name}: must be a complete gzip file: {error}; {advice}") from error
    actual = hashlib.sha256(content).hexdigest()
    if actual != file.sha256:
        raise DataError(
            f"{name}: sha256 of the decompressed file must be {file.sha256}, but got {actual}; "
            f"{advice}"
        )
    return content


def _reason(url: str, error: Exception) -> str:
    """What went wrong, in a few words; connection errors repeat the URL and much else."""
    if isinstance(error, DataError):
        return str(error)
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return f"{url}: HTTP status {status}"
    return f"{url}: {getattr(error, 'strerror', None) or type(error).__name__}"
