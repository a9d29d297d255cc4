"""Where one run keeps its progress: a file, of this machine or shared, or an object of a store.

Content is there whole or not at all, as far as the store can promise it; a reader must know a torn
one by its content.
"""

from __future__ import annotations

import glob
import re
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs")
"""What pyarrow finds a file system for; credentials come from the environment."""


class Place(Protocol):
    """One place that holds bytes, or nothing."""

    def read(self) -> bytes | None:
        """What it holds."""

    def write(self, content: bytes) -> None:
        """Hold this instead."""

    def remove(self) -> None:
        """Hold nothing."""


def place_at(address: str | Path) -> Place:
    """The place that a path or an address such as ``s3://bucket/prefix/name`` names."""
    if isinstance(address, str) and "://" in address:
        return Remote(address)
    return LocalFile(Path(address))


def checked_storage(text: str) -> str:
    """The folder or the address under which a sweep's runs keep their progress, in full.

    Raises:
        ValueError: it is neither; never repeats the text, which may hold a password.
    """
    if not text.strip() or "\0" in text:
        raise ValueError("must be a folder, or an address such as s3://bucket/prefix")
    scheme, is_address, rest = text.partition("://")
    if not is_address:
        return str(Path(text).expanduser().absolute())
    if scheme not in SCHEMES:
        raise ValueError(f"must be a folder, or begin with one of {', '.join(SCHEMES)} and ://")
    if re.search(r"[?#]", rest) or re.search(r":.*@", rest):
        raise ValueError(
            "must hold no credentials and no options; they are read from the environment, such as "
            "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL"
        )
    if not rest.strip("/"):
        raise ValueError("must name a bucket, such as s3://bucket/prefix")
    return text.rstrip("/")


@dataclass(frozen=True)
class LocalFile:
    """A file: written beside itself, then renamed."""

    path: Path

    def read(self) -> bytes | None:
        """What it holds."""
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return None

    def write(self, content: bytes) -> None:
        """Hold this instead; nobody ever sees a part of it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=self.path.parent, prefix=f"{self.path.name}.", delete=False
        ) as file:
            try:
                file.write(content)
                file.flush()
                Path(file.name).replace(self.path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise

    def remove(self) -> None:
        """Also what a killed worker was writing."""
        for file in self.path.parent.glob(f"{glob.escape(self.path.name)}*"):
            file.unlink(missing_ok=True)


@dataclass(frozen=True)
class Remote:
    """An object of a store: it appears when its upload ends."""

    address: str

    def read(self) -> bytes | None:
        """What it holds."""
        files, path = self._open()
        try:
            with files.open_input_file(path) as file:  # one request: a stream makes several
                return bytes(file.read_at(file.size(), 0))
        except FileNotFoundError:
            return None

    def write(self, content: bytes) -> None:
        """Hold this instead, in one upload."""
        files, path = self._open()
        if files.type_name == "hdfs":  # a file system: it wants its folders
            files.create_dir(path.rpartition("/")[0])
        with files.open_output_stream(path) as stream:
            stream.write(content)

    def remove(self) -> None:
        """Hold nothing."""
        files, path = self._open()
        with suppress(FileNotFoundError):
            files.delete_file(path)

    def _open(self) -> tuple[FileSystem, str]:
        from pyarrow.fs import FileSystem

        return FileSystem.from_uri(self.address)  # type: ignore[no-any-return]  # pyarrow's
