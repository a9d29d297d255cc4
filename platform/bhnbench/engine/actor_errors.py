"""Ray Tune taught that a worker may be lost in more ways than it knows.

Tune expects two kinds of errors of an actor's task and ends the whole experiment at another one.
But Ray raises others too: where its memory monitor kills a worker (``OutOfMemoryError``), and
where a result is lost with its node (``ObjectLostError``, ``OwnerDiedError``). Each costs one run,
no more.
"""

from __future__ import annotations

from typing import Any

from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import RayActorError, RayTaskError


def as_actor_error(error: Exception) -> Exception:
    """An error that Tune knows; its text begins with the name of what it was."""
    if isinstance(error, RayActorError | RayTaskError):
        return error
    return RayActorError(error_msg=f"{type(error).__name__}: {error}")


def teach() -> None:
    """Let Tune's manager of actors take every error as that of the actor. Again does no harm."""
    known = RayActorManager._actor_task_failed
    if getattr(known, "takes_any_error", False):
        return

    def take(self: RayActorManager, tracked_actor_task: Any, exception: Exception) -> None:  # noqa: ANN401 - Ray's
        known(self, tracked_actor_task, as_actor_error(exception))

    take.takes_any_error = True  # type: ignore[attr-defined]  # a mark of ours
    setattr(RayActorManager, known.__name__, take)  # it has no door for this
