"""Data files: in the user's folder, else in a per-user cache that is filled by download."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

from bhnbench.contract import DataFile, Progress
from bhnbench.errors import DataError
from bhnbench.progress_bar import show

FOLDER_VARIABLE = "BHNBENCH_DATA"
AGAIN = "delete it and run again to download it"


def data_folder() -> Path | None:
    """The user's own folder, which is never written to."""
    folder = os.environ.get(FOLDER_VARIABLE)
    return Path(folder).expanduser() if folder else None


def cache_folder() -> Path:
    """Where downloads are kept for this user; laid out as the user's own folder."""
    import pooch

    return Path(pooch.os_cache("bhnbench"))


def folders() -> list[Path]:
    """Where files are looked for: in the user's folder, then in the cache."""
    own = data_folder()
    return [own, cache_folder()] if own else [cache_folder()]


def locate(file: DataFile) -> Path | None:
    """Where the file lies, unchecked; None where it does not."""
    places = (folder / file.path for folder in folders())
    return next((place for place in places if place.is_file()), None)


def read_here(file: DataFile) -> bytes:
    """The content of a file on this machine, checked; of a gzip file what is in it.

    Raises:
        DataError: the file is nowhere, or its content is wrong.
    """
    path = locate(file)
    if path is None:
        looked = " and ".join(str(folder) for folder in folders())
        raise DataError(
            f"{file.path}: not on this machine (looked in {looked}); get the file whose "
            f"{digest_kind(file)} is {digest_value(file)}"
        )
    return read_verified(path, file)


def read(file: DataFile, mirrors: Sequence[str], progress: Progress = show) -> bytes:
    """As ``read_here``, but a file that is not here is downloaded.

    Raises:
        DataError: the file cannot be had, or its content is wrong.
    """
    if locate(file) is not None:
        return read_here(file)
    from bhnbench_tasks.datasets.download import fetch  # with it come requests and much else

    return fetch(file, mirrors, cache_folder() / file.path, progress)


def read_verified(path: Path, file: DataFile, *, name: str = "", advice: str = AGAIN) -> bytes:
    """The content of the file at ``path``; of a gzip file what is in it.

    Args:
        path: where it lies.
        file: what it should be.
        name: what a message calls it; by default, its path.
        advice: what a message says to do.

    Raises:
        DataError: it cannot be read, or its content is wrong.
    """
    name = name or str(path)
    try:
        published = path.read_bytes()
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror}; allow it") from error
    if file.decompressed:
        content = _unpack(published, file, name, advice)
        _check(content, file, name, advice)
        return content
    _check(published, file, name, advice)
    packed = file.path.endswith(".gz") and not file.path.endswith(".tar.gz")
    return _unpack(published, file, name, advice) if packed else published


def _check(content: bytes, file: DataFile, name: str, advice: str) -> None:
    algorithm = file.digest.partition(":")[0]
    actual = hashlib.new(algorithm, content, usedforsecurity=False).hexdigest()
    if actual == digest_value(file):
        return
    size = ""
    if not file.decompressed and file.size not in (None, len(content)):
        size = f" ({len(content)} bytes instead of {file.size})"
    raise DataError(
        f"{name}: {digest_kind(file)} must be {digest_value(file)}, but got {actual}{size}; "
        f"{advice}"
    )


def _unpack(published: bytes, file: DataFile, name: str, advice: str) -> bytes:
    try:
        return gzip.decompress(published)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        actual = hashlib.sha256(published).hexdigest()
        raise DataError(
            f"{name}: must be a complete gzip file whose {digest_kind(file)} is "
            f"{digest_value(file)}, but: {error} ({len(published)} bytes, sha256 as it lies there "
            f"{actual}); {advice}"
        ) from error


def digest_kind(file: DataFile) -> str:
    """What the file's digest is of, in words."""
    algorithm = file.digest.partition(":")[0]
    return f"{algorithm} of the decompressed file" if file.decompressed else algorithm


def digest_value(file: DataFile) -> str:
    """The file's digest alone."""
    return file.digest.partition(":")[2]
