"""Early termination of a study's trials: Ray's ASHA, refilled from the ledger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from bhnbench.contract import Direction
from bhnbench.specs import EarlyTermination

MAX_STEPS = 10**6  # only bounds the number of rungs; runs end by themselves
Point = tuple[int, float]  # (step, value)


@dataclass(frozen=True)
class _Member:
    """As much of a Tune trial as ASHA looks at."""

    trial_id: str


class Rungs:
    """The rungs of one study."""

    def __init__(self, early: EarlyTermination, direction: Direction) -> None:
        self._asha = AsyncHyperBandScheduler(
            time_attr="step",
            metric="value",
            mode="max" if direction == "maximize" else "min",
            grace_period=early.min_iter,
            reduction_factor=early.eta,
            max_t=MAX_STEPS,
        )
        self._members: set[str] = set()

    def stops(self, member: str, point: Point) -> bool:
        """Whether a member that got as far as ``point`` is to be stopped there."""
        if member not in self._members:
            self._members.add(member)
            self._asha.on_trial_add(cast("Any", None), cast("Any", _Member(member)))
        result = {"step": point[0], "value": point[1]}
        decision = self._asha.on_trial_result(
            cast("Any", None), cast("Any", _Member(member)), result
        )
        return bool(decision == TrialScheduler.STOP)

    def refill(self, member: str, points: list[Point]) -> None:
        """Take in the reports of a member that ended before this process began."""
        for point in points:
            self.stops(member, point)


def milestones(early: EarlyTermination) -> list[int]:
    """The steps of the rungs, ascending."""
    steps = [early.min_iter]
    while steps[-1] * early.eta <= MAX_STEPS:
        steps.append(steps[-1] * early.eta)
    return steps
