"""A check of what a sweep needs: looked at once, told in one line with its fix."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from bhnbench.interrupts import interrupts_deferred
from bhnbench.words import one_line

State = Literal["ok", "warning", "failed", "skipped"]
SECONDS = 20.0  # of one check, unless it says otherwise
LENGTH = 400  # of what a crash says


@dataclass(frozen=True)
class Verdict:
    """How a check ended."""

    state: State
    found: str
    fix: str = ""


@dataclass(frozen=True)
class Finding:
    """One line of a report."""

    group: str
    name: str
    state: State
    found: str
    fix: str


@dataclass(frozen=True)
class Check:
    """Something to look at: ``look`` answers, ``seconds`` is how long it may take."""

    group: str
    name: str
    look: Callable[[], Verdict]
    seconds: float = SECONDS

    def examine(self) -> Finding:
        """Look; a check that raises or does not end has failed."""
        verdict = _bounded(self.look, self.seconds)
        return Finding(self.group, self.name, verdict.state, verdict.found, verdict.fix)


class InTurn:
    """Looks of which each needs that the ones before it found no fault."""

    def __init__(self) -> None:
        self._broken = ""

    def look(self, name: str, look: Callable[[], Verdict]) -> Verdict:
        """Look, unless an earlier look failed."""
        if self._broken:
            return skipped(f"{self._broken} failed")
        verdict = _guarded(look)
        if verdict.state == "failed":
            self._broken = name
        return verdict


def ok(found: str) -> Verdict:
    """All is well."""
    return Verdict("ok", found)


def warning(found: str, fix: str) -> Verdict:
    """A sweep runs, but not as well or as safely as it could."""
    return Verdict("warning", found, fix)


def failed(found: str, fix: str) -> Verdict:
    """A sweep does not run."""
    return Verdict("failed", found, fix)


def skipped(why: str) -> Verdict:
    """There is nothing to look at, or it cannot be looked at."""
    return Verdict("skipped", why)


def _bounded(look: Callable[[], Verdict], seconds: float) -> Verdict:
    """In a thread, which is left behind where it hangs: on a dead network folder, say."""
    verdicts: list[Verdict] = []
    thread = threading.Thread(target=lambda: verdicts.append(_guarded(look)), daemon=True)
    with interrupts_deferred():  # it may be importing a compiled library
        thread.start()
        thread.join(seconds)
    if verdicts:
        return verdicts[0]
    return failed(
        f"no answer in {seconds:g} s", "see whether a disk, a network or a server here hangs"
    )


def _guarded(look: Callable[[], Verdict]) -> Verdict:
    try:
        return look()
    except BaseException as error:  # a plugin may even call sys.exit
        text = one_line(f"{type(error).__name__}: {error}")[:LENGTH]
        return failed(f"the check itself failed: {text}", "repair that, or report it as a fault")
