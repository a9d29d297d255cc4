"""Early termination of a study's trials: Ray's ASHA, refilled from the ledger."""

from __future__ import annotations

from collections.abc import Sequence
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
        self._n_fed: dict[int, int] = {}

    def stops(self, trial: int, points: Sequence[Point]) -> bool:
        """Whether a trial that made these reports is to be stopped at one of its new ones.

        A trial that goes on from saved progress comes with several new reports: each takes its
        place on the rung it passed.
        """
        member = cast("Any", _Member(f"trial-{trial}"))
        if trial not in self._n_fed:
            self._n_fed[trial] = 0
            self._asha.on_trial_add(cast("Any", None), member)
        new = points[self._n_fed[trial] :]
        self._n_fed[trial] = len(points)
        results = [{"step": step, "value": value} for step, value in new]
        decisions = [self._asha.on_trial_result(cast("Any", None), member, r) for r in results]
        return TrialScheduler.STOP in decisions


def milestones(early: EarlyTermination) -> list[int]:
    """The steps of the rungs, ascending."""
    steps = [early.min_iter]
    while steps[-1] * early.eta <= MAX_STEPS:
        steps.append(steps[-1] * early.eta)
    return steps
