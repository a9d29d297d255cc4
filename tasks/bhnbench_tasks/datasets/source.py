"""What is known of a data set without reading it, and how to read it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from bhnbench.contract import DataFile, DataSource, Progress
from bhnbench_tasks.datasets import files as data_files

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Source(DataSource, Generic[T]):
    """A published data set: its files, and where they are."""

    doc: str
    origin: str
    load: Callable[[], T]
    files: tuple[DataFile, ...] = ()
    mirrors: tuple[str, ...] = ()
    bundled_digest: str = ""  # of the content, where there are no files
    edition: str = ""  # of what is made of the files: another one when that changes

    @property
    def digest(self) -> str:
        """Digest of the content; reads nothing."""
        return digest_of(self.files, self.edition) if self.files else self.bundled_digest

    @property
    def folders(self) -> Sequence[Path]:
        """The user's folder, if there is one, and the cache."""
        return data_files.folders()

    def locate(self, file: DataFile) -> Path | None:
        """Where the file lies on this machine, unchecked."""
        return data_files.locate(file)

    def verify(self, file: DataFile) -> None:
        """Check a file where it lies; nothing is downloaded."""
        data_files.read_here(file)

    def prepare(self, progress: Progress) -> None:
        """Fetch and check every file; what comes with a package is checked by reading it."""
        self.prepare_files(self.files, progress)
        if not self.files:
            self.load()

    def prepare_files(self, files: Sequence[DataFile], progress: Progress) -> None:
        """Fetch and check some of the files."""
        for file in files:
            data_files.read(file, self.mirrors, progress)


def on_github(repository: str, version: str, folder: str = "") -> tuple[str, ...]:
    """Mirrors of files in a repository on GitHub: its own server, and a network of caches."""
    return (
        f"https://raw.githubusercontent.com/{repository}/{version}/{folder}",
        f"https://cdn.jsdelivr.net/gh/{repository}@{version}/{folder}",  # up to 20 MB a file
    )


def digest_of(files: Sequence[DataFile], edition: str = "") -> str:
    """One digest for several files, and for what is made of them."""
    joined = "".join(data_files.digest_value(file) for file in files)
    return hashlib.sha256(f"{joined}{edition}".encode()).hexdigest()
