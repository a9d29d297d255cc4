"""The progress of a run, kept so that a run that is lost goes on from it.

Reading one runs no code that it brings. It is a file of ``torch.save`` read with ``weights_only``:
tensors, arrays, numbers, text and plain containers, and objects of classes that the packages of
installed plugins, ``torch.nn`` and the contract define. Predictives are such objects: a method
would otherwise have to describe each of its networks a second time, as data. A class is made and
filled; functions are never called, no module is imported but those of registered plugins, and a
file that names anything else is as good as none.
"""

from __future__ import annotations

import io
import logging
import sys
import time
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Protocol

from bhnbench.clock import Clock
from bhnbench.errors import ContractError
from bhnbench.plugins import Kind, installed
from bhnbench.runs import Point
from bhnbench.storage import Place
from bhnbench.warning_log import WarningLog
from bhnbench.words import one_line

if TYPE_CHECKING:
    import torch

CHECKPOINT_SECONDS = 5.0  # progress newer than this is cheaper to redo than to write
KINDS: tuple[Kind, ...] = ("method", "task")
PLATFORM = ("bhnbench.contract", "bhnbench.likelihoods", "bhnbench.devices")

logger = logging.getLogger(__name__)


class Resumable(Protocol):
    """What of a run goes on where it was."""

    points: list[Point]
    n_fits: int
    clock: Clock
    warnings: WarningLog


class RunCheckpoint:
    """Keeps a task's progress in a place of the run's own, with all that makes it exact.

    It is a help: a run whose progress cannot be kept goes on without.
    """

    def __init__(
        self, run: Resumable, key: str, rng: torch.Generator, place: Place | None
    ) -> None:
        self._run = run
        self._key = key
        self._rng = rng
        self._place = place
        self._saved_at = time.monotonic()

    def load(self) -> Any | None:  # noqa: ANN401 - a task's own state
        """The state saved last; None where there is none, or it is torn, foreign or unsafe."""
        try:
            kept = self._place.read() if self._place is not None else None
            if kept is None:
                return None
            content = from_bytes(kept)
            if content["key"] != self._key:
                return None
            points, n_fits, state = content["points"], content["n_fits"], content["state"]
            seconds = content["fit_seconds"], content["score_seconds"]
            warnings = content.get("warnings", ())  # none in older files
            self._rng.set_state(content["rng"])
        except Exception as error:  # whatever a broken file raises, the run starts afresh
            logger.warning("the progress of run %s is not used: %s", self._key, one_line(error))
            return None
        self._run.points[:] = points
        self._run.clock.go_on_from(*seconds)
        self._run.n_fits = n_fits
        self._run.warnings.texts[:] = warnings
        return state

    def save(self, state: Any) -> None:  # noqa: ANN401 - a task's own state
        """Keep ``state``, unless what was kept last is young."""
        if self._place is None or time.monotonic() - self._saved_at < CHECKPOINT_SECONDS:
            return
        content = {
            "key": self._key,
            "rng": self._rng.get_state(),
            "points": self._run.points,
            "warnings": self._run.warnings.texts,
            "fit_seconds": self._run.clock.fit_seconds,
            "score_seconds": self._run.clock.score_seconds,
            "n_fits": self._run.n_fits,
            "state": state,
        }
        try:
            self._place.write(to_bytes(content))
        except Exception as error:  # pickle raises whatever an object's hooks do
            logger.warning("the progress of run %s is not kept: %s", self._key, one_line(error))
        self._saved_at = time.monotonic()

    def remove(self) -> None:
        """Keep nothing any longer."""
        try:
            if self._place is not None:
                self._place.remove()
        except Exception as error:  # a store raises errors of its own
            logger.warning("the progress of run %s stays: %s", self._key, one_line(error))


def to_bytes(content: object, trusted: Collection[str] = ()) -> bytes:
    """What ``from_bytes`` reads.

    Raises:
        ContractError: it holds something that ``from_bytes`` would refuse.
    """
    import torch

    buffer = io.BytesIO()
    torch.save(content, buffer)
    names = _names_in(buffer)
    refused = names - _loadable(names, trusted).keys()
    if refused:
        raise ContractError(
            "a checkpoint must hold tensors, arrays, plain containers and objects of classes of "
            f"torch.nn and of plugins' packages, but holds {', '.join(sorted(refused))}"
        )
    return buffer.getvalue()


def from_bytes(kept: bytes, trusted: Collection[str] = ()) -> Any:  # noqa: ANN401 - whatever was kept
    """What was kept; runs no code that it brings.

    Args:
        kept: by ``to_bytes``, perhaps: anybody may have written it.
        trusted: packages and modules of whose classes it may hold objects, besides.
    """
    import torch

    buffer = io.BytesIO(kept)
    loadable = _loadable(_names_in(buffer), trusted)
    with torch.serialization.safe_globals([(found, name) for name, found in loadable.items()]):
        return torch.load(buffer, weights_only=True)


def _names_in(buffer: io.BytesIO) -> set[str]:
    """What torch alone would not load, as "module.name"."""
    import torch

    buffer.seek(0)
    names = set(torch.serialization.get_unsafe_globals_in_checkpoint(buffer))
    buffer.seek(0)
    return names


def _loadable(names: set[str], trusted: Collection[str]) -> dict[str, Any]:
    """Those of ``names`` that may be loaded, and what they are; and what numpy needs."""
    plugins = {p.target.partition(":")[0]: p for k in KINDS for p in installed(k).values()}
    roots = {*PLATFORM, *trusted, *(module.partition(".")[0] for module in plugins)}
    for module in {name.rpartition(".")[0] for name in names} & plugins.keys():
        plugins[module].load()  # a teacher's, say, which only its pupil's fit imports
    classes = {name: _class(name, roots) for name in names}
    return {name: found for name, found in classes.items() if found} | _numpy()


def _class(name: str, roots: Collection[str]) -> type | None:
    """The class of that name, where it may be trusted."""
    from torch import nn

    module, _, attribute = name.rpartition(".")
    found = getattr(sys.modules.get(module), attribute, None)
    if not isinstance(found, type) or found.__module__ != module:
        return None  # a function, or something that the module merely imports
    if module.startswith("torch.nn."):
        return found if issubclass(found, nn.Module) else None
    return found if any(f"{module}.".startswith(f"{root}.") for root in roots) else None


def _numpy() -> dict[str, Any]:
    """What arrays and numpy's numbers are made with, by name."""
    import numpy as np
    from numpy._core import multiarray

    dtypes = [found for found in vars(np.dtypes).values() if isinstance(found, type)]
    classes = {f"{c.__module__}.{c.__qualname__}": c for c in [np.ndarray, np.dtype, *dtypes]}
    makers = ("_reconstruct", "scalar")
    return classes | {f"numpy._core.multiarray.{n}": getattr(multiarray, n) for n in makers}
