"""Which runs that failed are tried again at once, and with what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from bhnbench.engine.work import Work
from bhnbench.runs import RunResult
from bhnbench.sweep.execution import Resources, Retries

MAX_KILLED = 3  # workers that a run may kill, in all sweeps together
_CLASSES = {"interrupted": "infra"}  # else a failure's class has its own name


def next_try(
    work: Work, result: RunResult, retries: Retries, fits: Callable[[Resources], bool]
) -> Work | None:
    """The work to do instead of noting a failure for good; None where it stands.

    A run that ran out of memory asks for twice as much, if the cluster has a node with that.
    """
    if result.state != "failed" or result.failure is None:
        return None
    kind = _CLASSES.get(result.failure, result.failure)
    if work.failed.count(kind) >= getattr(retries, kind, 0):
        return None
    again = replace(work, failed=(*work.failed, kind))
    if kind != "out_of_memory":
        return again
    larger = enlarged(work.asked)
    return replace(again, request=larger) if fits(larger) else None


def enlarged(resources: Resources) -> Resources:
    """Twice the memory: the share of a GPU, the memory asked for, or else that of two runs."""
    if resources.gpu:
        twice = 2 * resources.gpu
        whole = 1.0 if resources.gpu < 1 < twice else twice  # one GPU is shared, more are whole
        return replace(resources, gpu=whole)
    if resources.memory:
        return replace(resources, memory=2 * resources.memory)
    return replace(resources, cpu=2 * resources.cpu)


def quarantined(work: Work, result: RunResult) -> RunResult:
    """The result of a run whose worker died: final, if too many died of it."""
    n_killed = work.claim.n_killed + 1
    if result.failure != "interrupted" or n_killed < MAX_KILLED:
        return result
    reason = f"{n_killed} workers died of it, so it is not tried again; the last: {result.message}"
    return replace(result, failure="quarantined", message=reason)
