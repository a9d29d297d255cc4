"""The global state of a process, which a plugin leaves as it found it."""

from __future__ import annotations

import os
import pickle
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch


def global_state() -> dict[str, object]:
    """What a plugin must not change, by name."""
    legacy = np.random.get_state(legacy=True)  # noqa: NPY002 - this stream is what is guarded
    return {
        "torch's global random stream": torch.get_rng_state().numpy().tobytes(),
        "numpy's global random stream": pickle.dumps(legacy),
        "Python's global random stream": random.getstate(),
        "torch's default dtype": torch.get_default_dtype(),
        "torch's number of threads": torch.get_num_threads(),
        "torch's gradient mode": torch.is_grad_enabled(),
        "torch's deterministic mode": torch.are_deterministic_algorithms_enabled(),
        "the environment": dict(os.environ),
        "the working directory": Path.cwd(),
    }


@contextmanager
def unchanged_globals(who: str) -> Iterator[None]:
    """Fail if the block changes the global state."""
    before = global_state()
    yield
    after = global_state()
    changed = [name for name in before if before[name] != after[name]]
    assert not changed, (
        f"{who} must leave the global state as it is, but changed {', '.join(changed)}; "
        "draw random numbers from rng, and seed layers within torch.random.fork_rng()"
    )


@contextmanager
def other_globals(seed: int) -> Iterator[None]:
    """Seed the global random streams within the block: no result may depend on them."""
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002
            random.setstate(python_state)
