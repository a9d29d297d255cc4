"""One run to execute, and why."""

from __future__ import annotations

from dataclasses import dataclass

from bhnbench.ledger.leases import UNCLAIMED, Claim
from bhnbench.ledger.records import TrialRef
from bhnbench.specs import EarlyTermination, RunSpec
from bhnbench.sweep.execution import Resources


@dataclass(frozen=True)
class Work:
    """One run to execute, and why."""

    study: int  # position in the sweep
    spec: RunSpec
    trial: TrialRef | None
    resources: Resources
    early_termination: EarlyTermination | None = None
    metric: str = ""  # by which it may be stopped early
    claim: Claim = UNCLAIMED  # until the ledger gives it
    failed: tuple[str, ...] = ()  # how earlier tries of this driver ended
    request: Resources | None = None  # what it asks for, if more than `resources`

    @property
    def asked(self) -> Resources:
        """What it occupies."""
        return self.request or self.resources
