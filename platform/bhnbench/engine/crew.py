"""The workers of a sweep: who is hired, what each one does, and what it does next."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from bhnbench.engine.cluster import Cluster
from bhnbench.engine.coordinator import Coordinator
from bhnbench.engine.work import Work
from bhnbench.errors import BhnbenchError, ResourceError
from bhnbench.runs import RunResult
from bhnbench.sweep.execution import Resources

IDLE_LIMIT_SECONDS = 5.0  # then a worker makes room for those who have work
MAX_STILLBORN = 10  # workers in a row that did not start
REST_SECONDS = 30.0  # before one like it is hired again, unless a run ends sooner


@dataclass
class Worker:
    """One actor, which serves runs that all ask for the same."""

    resources: Resources
    handle: Any = None  # of the actor; None: it is not up yet
    work: Work | None = None
    idle_since: float = field(default_factory=time.monotonic)


class Crew:
    """Hires workers where there is room, and keeps each at work. Knows no Tune."""

    def __init__(
        self, coordinator: Coordinator, cluster: Cluster, pack: Callable[[Work], str]
    ) -> None:
        """Nobody is hired yet.

        Args:
            coordinator: has the work.
            cluster: has the room.
            pack: a run as a worker is told of it.
        """
        self._coordinator = coordinator
        self._cluster = cluster
        self._pack = pack
        self._workers: dict[str, Worker] = {}  # by Tune's trial id
        self._rested_until: dict[Resources, float] = {}
        self._n_stillborn = 0
        self.error: BhnbenchError | None = None  # that ended the sweep

    def __reduce__(self) -> tuple[type[Crew], tuple[()]]:
        """Tune pickles what it is given, for a restore that we never use: the ledger remembers."""
        return object.__new__, (Crew,)  # type: ignore[return-value]  # an empty one is enough

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self._coordinator.finished

    def hire(self, worker_id: str) -> Resources | None:
        """What a further worker is to have; None where none is wanted now.

        On a cluster that may grow one more is wanted than there is room for: it starts on the
        node that joins next, and an autoscaler sees that there is work for one.
        """
        for resources, n_left in self._coordinator.n_left().items():
            hired = [w for w in self._workers.values() if w.resources == resources]
            idle = sum(worker.work is None for worker in hired)
            room = self._cluster.slots(resources) + self._cluster.grows
            rested = time.monotonic() >= self._rested_until.get(resources, 0.0)
            if rested and idle < n_left and len(hired) < room:
                self._workers[worker_id] = Worker(resources)
                return resources
        return None

    def goes_on(self, worker_id: str, handle: Any | None, result: RunResult | None) -> bool:  # noqa: ANN401 - Ray's
        """Take in what a worker brought and give it something to do; False: it may go.

        Args:
            worker_id: who.
            handle: of its actor, with which a worker introduces itself.
            result: of its run, at a rung or at the end; None: it had nothing to do.
        """
        worker = self._workers[worker_id]
        if handle is not None:
            worker.handle, self._n_stillborn = handle, 0
        if worker.work is not None and result is None:
            return True  # what it was given has not reached it yet
        if worker.work is not None and result is not None:
            if result.state != "running":
                self._land(worker.work, result)
            elif not self._coordinator.stops_at_rung(worker.work, result):
                return True
            worker.work, worker.idle_since = None, time.monotonic()
        return self._give(worker_id, worker)

    def _give(self, worker_id: str, worker: Worker) -> bool:
        worker.work = self._coordinator.next_work(worker.resources)
        if worker.work is not None:
            worker.handle.give.remote(self._pack(worker.work))
            return True
        if not self._coordinator.n_left()[worker.resources]:
            del self._workers[worker_id]
            return False
        idle_seconds = time.monotonic() - worker.idle_since
        if idle_seconds < IDLE_LIMIT_SECONDS or not self._is_in_the_way(worker):
            return True
        self._rested_until[worker.resources] = time.monotonic() + REST_SECONDS
        del self._workers[worker_id]
        return False

    def _is_in_the_way(self, idle: Worker) -> bool:
        """Whether others may want its room: runs that ask for something else, or other sweeps."""
        left = self._coordinator.n_left()
        return self._cluster.grows or any(resources != idle.resources for resources in left)

    def _land(self, work: Work, result: RunResult, *, killed: bool = False) -> None:
        self._coordinator.land(work, result, killed=killed)
        self._rested_until.clear()  # what waited for it may go on

    def lost(self, worker_id: str, result: RunResult, *, killed: bool) -> None:
        """A worker is gone, and its run with it.

        Args:
            worker_id: who.
            result: what is to be said of its run.
            killed: it died, and not because its node was lost.

        Raises:
            ResourceError: no worker starts.
        """
        worker = self._workers.pop(worker_id)
        if worker.work is not None:
            self._land(worker.work, result, killed=killed)
        if worker.handle is None:
            self._count_stillborn(worker, result)

    def _count_stillborn(self, worker: Worker, result: RunResult) -> None:
        self._n_stillborn += 1
        self._rested_until[worker.resources] = time.monotonic() + IDLE_LIMIT_SECONDS
        if self._n_stillborn >= MAX_STILLBORN:
            raise ResourceError(
                f"workers must start, but {self._n_stillborn} in a row did not; the last: "
                f"{result.message[:300]}; see `bhnbench doctor`"
            )

    @contextmanager
    def remembering_errors(self) -> Iterator[None]:
        """Tune makes a text of what its schedulers raise; the error itself is kept here."""
        try:
            yield
        except BhnbenchError as error:
            self.error = error
            raise
