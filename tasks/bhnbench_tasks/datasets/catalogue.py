"""Data sets of one kind by name, or by the path of a user's file; each is read once a process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from bhnbench.progress_bar import show
from bhnbench.space import ChoiceOrFile
from bhnbench_tasks.datasets import npz
from bhnbench_tasks.datasets.source import Source

T = TypeVar("T")


class Catalogue(Generic[T]):
    """Published data sets, and whatever ``load_file`` reads.

    What is loaded is shared by all that ask for it: never modify its tensors.
    """

    def __init__(self, sources: Mapping[str, Source[T]], load_file: Callable[[str], T]) -> None:
        self.sources = sources
        self.names = ChoiceOrFile(*sources, suffix=npz.SUFFIX)
        self._load_file = load_file
        self._loaded: dict[str, T] = {}

    def load(self, name: str) -> T:
        """The data set of that name, or in that file of the user's, which is read anew.

        Raises:
            DataError: its files are missing, or are not what they should be.
        """
        if name not in self.sources:
            return self._load_file(name)
        if name not in self._loaded:
            self._loaded[name] = self.sources[name].load()
        return self._loaded[name]

    def prepare(self, name: str) -> None:
        """Fetch and check every file of the data set.

        Raises:
            DataError: a file cannot be had, or is not what it should be.
        """
        if name in self.sources:
            self.sources[name].prepare(show)
        else:
            self._load_file(name)

    def digest(self, name: str) -> str:
        """Digest of the content; of a published data set it reads nothing."""
        return self.sources[name].digest if name in self.sources else npz.digest(name)

    def forget(self) -> None:
        """Read anew what is asked for next."""
        self._loaded.clear()
