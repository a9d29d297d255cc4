"""A sweep file: valid, its data here or within reach, its methods able to do its tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from bhnbench.doctor.data import data_sets
from bhnbench.doctor.storage import reached
from bhnbench.doctor.support import supported
from bhnbench.errors import InvalidSweepError
from bhnbench.findings import Check, Verdict, failed, ok, skipped
from bhnbench.sweep.document import Sweep, read_sweep
from bhnbench.sweep.execution import Resources
from bhnbench.words import counted

GROUP = "Sweep file"


class SweepFile:
    """The sweep file of one examination; without one there is nothing to look at."""

    def __init__(self, path: Path | None, overrides: Sequence[str]) -> None:
        self.path = path
        self.overrides = overrides
        self.sweep: Sweep | None = None  # once it has been read without mistakes
        self.invalid = False

    def checks(self) -> Iterator[Check]:
        """None without a file."""
        if self.path is None:
            return
        yield Check(GROUP, "document", partial(self._read, self.path), seconds=60)
        looks = {"data": data_sets, "methods": supported, "storage": reached}
        for name, look in looks.items():
            yield Check(GROUP, name, partial(self._of_sweep, look), seconds=60)

    def requests(self) -> list[Resources]:
        """What the sweep's runs ask of a cluster; nothing where it is not known."""
        sweep = self.sweep
        return [] if sweep is None else [sweep.resources_of(study) for study in sweep.studies]

    def _read(self, path: Path) -> Verdict:
        """Every mistake is told, a line each."""
        try:
            self.sweep = read_sweep(path, self.overrides)
        except InvalidSweepError as error:
            self.invalid = True
            return failed("\n".join(error.mistakes), f"correct {path}")
        return ok(f"{self.sweep.name}: {counted(len(self.sweep.studies), 'study', 'studies')}")

    def _of_sweep(self, look: Callable[[Sweep], Verdict]) -> Verdict:
        return skipped("the document failed") if self.sweep is None else look(self.sweep)
