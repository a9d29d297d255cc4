"""Downloads: mirrors in turn, resumed where they broke off, by one process at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO

import pooch
import requests

from bhnbench.contract import DataFile, Progress
from bhnbench.errors import DataError
from bhnbench_tasks.datasets.files import (
    FOLDER_VARIABLE,
    digest_kind,
    digest_value,
    read_verified,
)

TIMEOUT_SECONDS: tuple[float, float] = (10, 60)  # to connect, to wait for the next bytes
CHUNK_BYTES = 1 << 16  # what is written at once, and lost at most when the line breaks
_MAX_RESUMES = 20  # of one mirror, each of which brought something
_RANGE_NOT_SATISFIABLE = 416


def fetch(file: DataFile, mirrors: Sequence[str], target: Path, progress: Progress) -> bytes:
    """Fetch ``file`` from the first mirror that has it, and keep it at ``target``.

    What a broken download has brought stays beside it, as ``NAME.part``, and is continued.

    Args:
        file: what it should be.
        mirrors: addresses; to one that ends in a slash the file's name is added.
        target: where it is to lie; it appears there whole and checked, or not at all.
        progress: is told of every piece.

    Raises:
        DataError: no mirror gave the right content; says where to put the file by hand.
    """
    reasons = []
    try:
        with _locked(target):
            if target.is_file():  # another process fetched it while this one waited
                return read_verified(target, file)
            for mirror in mirrors:
                url = mirror + target.name if mirror.endswith("/") else mirror
                try:
                    return _fetch_from(url, file, target, progress)
                except (OSError, DataError) as error:
                    reasons.append(_reason(url, error))
    except OSError as error:
        reasons.append(f"{target.parent}: {error.strerror}")
    raise DataError(
        f"{file.path}: not on this machine, and cannot be downloaded ({'; '.join(reasons)}); "
        f"set {FOLDER_VARIABLE} to a folder that holds {file.path}, or put it at {target} "
        f"({digest_kind(file)}: {digest_value(file)})"
    )


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Hold the file's lock, which goes with the process, however it ends."""
    path = target.with_name(f"{target.name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with path.open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is_at(lock, path):
                continue  # its holder removed it while this process waited: it locks nobody out
            try:
                yield
            finally:
                path.unlink()
            return


def _is_at(lock: TextIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(lock.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _fetch_from(url: str, file: DataFile, target: Path, progress: Progress) -> bytes:
    part = target.with_name(f"{target.name}.part")
    resumed = _size(part) > 0
    _complete(url, file, part, progress)
    try:
        content = read_verified(part, file, name=url, advice="try another mirror")
    except DataError:
        part.unlink()
        if not resumed:
            raise
        # Its beginning may have come from another mirror, which packs the content otherwise.
        return _fetch_from(url, file, target, progress)
    part.replace(target)  # atomic: other processes see the whole file or none
    return content


def _complete(url: str, file: DataFile, part: Path, progress: Progress) -> None:
    """Go on where the connection broke off, as long as every attempt brings something."""
    for _ in range(_MAX_RESUMES):
        before = _size(part)
        try:
            return _get(url, file, part, progress)
        except requests.RequestException as error:
            status = getattr(error.response, "status_code", None)
            if status == _RANGE_NOT_SATISFIABLE and before > 0:
                part.unlink()  # it is not the beginning of this file
            elif _size(part) <= before:
                raise
    raise DataError(f"{url}: broke off {_MAX_RESUMES} times")


def _get(url: str, file: DataFile, part: Path, progress: Progress) -> None:
    try:
        with part.open("ab") as opened:
            writer = _Part(opened, file, progress)
            headers = {"Accept-Encoding": "identity"}  # so that a range means bytes of the file
            if writer.n_bytes:
                headers["Range"] = f"bytes={writer.n_bytes}-"
            pooch.HTTPDownloader(
                chunk_size=CHUNK_BYTES,
                timeout=TIMEOUT_SECONDS,
                headers=headers,
                hooks={"response": writer.begin},
            )(url, writer, None)
    finally:
        if _size(part) == 0:
            part.unlink(missing_ok=True)


class _Part:
    """The beginning of a file, which grows."""

    def __init__(self, opened: BinaryIO, file: DataFile, progress: Progress) -> None:
        self.n_bytes = opened.tell()
        self._opened, self._file, self._progress = opened, file, progress
        self._in_all: int | None = None

    def begin(self, response: requests.Response, **_: object) -> None:
        """Hear from requests what will come: the rest, or all where a server knows no ranges."""
        if response.status_code == requests.codes.ok:
            self._opened.truncate(0)
            self.n_bytes = 0
        length = response.headers.get("Content-Length")
        self._in_all = self.n_bytes + int(length) if length else self._file.size

    def write(self, chunk: bytes) -> None:
        """Add what came."""
        self._opened.write(chunk)
        self.n_bytes += len(chunk)
        self._progress(self._file.path, self.n_bytes, self._in_all)

    def flush(self) -> None:
        """Leave it to the file: it is flushed when it is closed."""


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _reason(url: str, error: Exception) -> str:
    """What went wrong, in a few words; connection errors repeat the URL and much else."""
    if isinstance(error, DataError):
        return str(error)
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return f"{url}: HTTP status {status}"
    return f"{url}: {getattr(error, 'strerror', None) or type(error).__name__}"
