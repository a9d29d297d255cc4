"""The errors of bhnbench.

::

    BhnbenchError                 exit code 1
    ├── InvalidSweepError         exit code 2: mistakes in a sweep file or an option
    ├── UnknownPluginError        exit code 2: no such method or task is installed
    ├── ResourceError             the cluster can never satisfy the request
    ├── LedgerError               the ledger cannot be opened or is of another version
    │   ├── NoLedgerError         it is not there yet, or an older one: a sweep makes it
    │   └── LedgerAwayError       its server does not answer, or gave up a transaction
    ├── DataError                 a data set is missing, or not what it should be
    ├── JobError                  a cluster takes no job, or knows none of that name
    └── RunError                  ends one run; the others go on
        ├── DivergedError         a loss or an output is no longer finite
        ├── UnsupportedError      the method says it cannot do this problem
        └── ContractError         a plugin broke its promise
    StopRunError                  raised by ``report`` to end a run early; no failure
    PosteriorWarning              a run goes on, but its posterior is suspect; kept in its record

Form: rule, values, fix, in one line.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping


class BhnbenchError(Exception):
    """Root of all errors that a user can do something about."""

    exit_code = 1


class InvalidSweepError(BhnbenchError):
    """A sweep file or an option breaks a rule; holds one line a mistake."""

    exit_code = 2

    def __init__(self, mistakes: Iterable[str]) -> None:
        self.mistakes = list(mistakes)
        super().__init__("\n".join(self.mistakes))


class UnknownPluginError(BhnbenchError):
    """No method or task of that name is installed."""

    exit_code = 2


class ResourceError(BhnbenchError):
    """A run asks for more than the cluster has."""


class LedgerError(BhnbenchError):
    """The ledger cannot be opened, or was written by another version."""


class NoLedgerError(LedgerError):
    """There is no ledger of this version yet; a sweep makes it, or brings it up to date."""


class LedgerAwayError(LedgerError):
    """The database server does not answer, or gave up a transaction; it may be back soon."""


class DataError(BhnbenchError):
    """A data set is missing, or its content is not what it should be."""


class JobError(BhnbenchError):
    """A cluster cannot be reached, refuses, or knows no such job."""


class RunError(BhnbenchError):
    """Ends one run."""


class DivergedError(RunError):
    """A loss or an output is no longer finite.

    Attributes:
        step: the optimiser's step at which it was seen, from 1; None if there is none.
        last_finite_loss: of the replica that diverged, before that step; None if there is none.
    """

    def __init__(
        self, message: str, *, step: int | None = None, last_finite_loss: float | None = None
    ) -> None:
        super().__init__(message)
        self.step, self.last_finite_loss = step, last_finite_loss


class UnsupportedError(RunError):
    """The method cannot do this problem, for the reason it gives."""


class ContractError(RunError):
    """A plugin broke its promise."""


class StopRunError(Exception):
    """Raised by ``report``: the run is to end here, early. Not a failure."""


class PosteriorWarning(UserWarning):
    """A posterior is suspect: it has collapsed to a point, or its samples are not finite.

    Raise it by ``warnings.warn`` while fitting or sampling; the run goes on and keeps the text.
    """


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A half-sentence that names the nearest known name, or all of them."""
    names = sorted(known)
    near = _nearest(_plain(name), {_plain(other): other for other in names})
    if near:
        return f"did you mean {' or '.join(map(repr, near))}?"
    return f"known: {', '.join(names)}" if names else "none is known"


def _nearest(name: str, known: Mapping[str, str]) -> list[str]:
    """By spelling ("MC dropout"), initials ("lr" for learning_rate), likeness or beginning."""
    same = [other for other in known if other == name]
    initials = [o for o in known if "".join(part[:1] for part in o.split("_")) == name]
    like = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    longer = [other for other in known if other.startswith(name)]
    short = len(name) < 2  # says too little
    near = same or (like if short else initials or like or longer)
    return [known[other] for other in near]


def _plain(name: str) -> str:
    return "_".join(name.casefold().replace("-", " ").split())
