"""What is made of Ray's words about a worker that is gone."""

from __future__ import annotations

import pytest
from ray.exceptions import ActorUnavailableError, ObjectLostError, OutOfMemoryError, RayActorError

from bhnbench.engine.actor_errors import as_actor_error
from bhnbench.engine.adapters import NODE_LOST, lost
from bhnbench.engine.cluster import _fits
from bhnbench.engine.retries import enlarged
from bhnbench.sweep.execution import Resources


def test_a_node_that_is_gone_is_none_of_the_run_s_doing() -> None:
    words = "The actor is temporarily unavailable: Socket closed"
    for text in (
        str(ActorUnavailableError(words, None)),
        "The actor died because its node has died. Node Id: 1",
        "The actor's node was terminated unexpectedly: health check failed",
    ):
        assert NODE_LOST.search(text), text
    killed = "The actor died unexpectedly before finishing this task. exit code 139 SIGSEGV"
    assert NODE_LOST.search(killed) is None


def test_what_the_memory_monitor_killed_ran_out_of_memory() -> None:
    error = OutOfMemoryError("Task was killed. Top 10 memory users: python --password=secret")
    known = as_actor_error(error)
    assert isinstance(known, RayActorError)
    result = lost(str(known))
    assert result.failure == "out_of_memory"
    assert "secret" not in result.message


def test_a_result_that_is_lost_costs_its_run() -> None:
    known = as_actor_error(ObjectLostError("00ff", None, "it"))
    assert isinstance(known, RayActorError)
    assert lost(str(known)).failure == "interrupted"


@pytest.mark.parametrize(
    ("gpu", "node", "n_fit"),
    [(0.4, 2, 4), (0.1, 1, 10), (0.25, 1, 4), (1.0, 3, 3), (2.0, 3, 1), (0.6, 2, 2)],
)
def test_a_share_is_of_one_gpu(gpu: float, node: int, n_fit: int) -> None:
    assert _fits({"GPU": gpu}, {"GPU": float(node)}) == n_fit


def test_a_larger_share_is_of_one_gpu_too() -> None:
    shares = [enlarged(Resources(1, gpu)).gpu for gpu in (0.25, 0.5, 0.6, 1.0, 2.0)]
    assert shares == [0.5, 1.0, 1.0, 2.0, 4.0]
