"""The learning rate that every method's optimiser is given, from the first step to the last."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib.util import find_spec

import pytest
import torch

from bhnbench.plugins import installed, load_method
from bhnbench.space import fields_of
from bhnbench.testing.fitting import fit
from bhnbench.testing.problems import make_problem
from bhnbench_methods.optimisers import Adam, LangevinDynamics

EPOCHS = 20  # of two steps each
N_STEPS = 2 * EPOCHS
NAMES = [
    name
    for name, plugin in installed("method").items()
    if plugin.package == "bhnbench" and (name != "laplace" or find_spec("laplace"))
]

Factor = Callable[[float], float]  # of the learning rate, at progress in [0, 1)


def tenfold(progress: float) -> float:
    """Evenly on a log scale."""
    return 10**-progress


def cosine(n_cycles: int) -> Factor:
    return lambda progress: 0.5 * (1 + math.cos(math.pi * (progress * n_cycles % 1)))


def linear_from_half(progress: float) -> float:
    return 1 if progress < 0.5 else 2 * (1 - progress)


def polynomial(progress: float) -> float:
    """``(b + t)^-0.55``, with b such that it falls tenfold while t goes from 0 to 1."""
    b = 1 / (10 ** (1 / 0.55) - 1)
    return ((b + progress) / b) ** -0.55


# What a method's ``lr_decay`` says that it does, and what is there without it.
DECAYS: dict[str, Factor] = {
    "sgld": polynomial,
    "sparse_variational_dropout": linear_from_half,
    "snapshot_ensemble": lambda progress: tenfold(progress) * cosine(4)(progress),
    "cyclical_sghmc": lambda progress: tenfold(progress) * cosine(4)(progress),
}
CYCLES = {"snapshot_ensemble", "cyclical_sghmc"}


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Of every step that an optimiser makes."""
    given: list[float] = []
    for optimiser in (Adam, LangevinDynamics):
        step = optimiser.step

        def recorded(
            self: Adam | LangevinDynamics,
            learning_rate: float,
            progress: float,
            step: Callable[..., None] = step,
        ) -> None:
            given.append(learning_rate)
            step(self, learning_rate, progress)

        monkeypatch.setattr(optimiser, "step", recorded)
    return given


def test_each_of_the_platforms_methods_is_known() -> None:
    assert len(NAMES) >= 14
    assert DECAYS.keys() <= set(NAMES)
    assert all("lr_decay" in fields_of(load_method(name)) for name in NAMES)


@pytest.mark.parametrize("lr_decay", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_learning_rate_of_every_step(name: str, lr_decay: bool, rates: list[float]) -> None:
    """As ``lr_decay`` is documented; without it, constant or falling in cycles."""
    cls = load_method(name)
    settings: dict[str, object] = {"learning_rate": 2e-3, "lr_decay": lr_decay}
    if name in CYCLES:
        settings["n_cycles"] = 4
    problem = make_problem("classification", epochs=EPOCHS, batch_size=24)
    fit(cls(**settings), problem)
    factor = DECAYS.get(name, tenfold) if lr_decay else cosine(4) if name in CYCLES else None
    expected = [2e-3 * (factor(i / N_STEPS) if factor else 1) for i in range(N_STEPS)]
    if name == "distilled":  # its teacher is trained first, with settings of its own
        assert rates[:N_STEPS] == [1e-3] * N_STEPS
        del rates[:N_STEPS]
    assert rates == pytest.approx(expected)
    if lr_decay and name not in CYCLES:
        assert rates[0] == 2e-3
        last = 0.05 if name == "sparse_variational_dropout" else 0.1
        assert rates[-1] == pytest.approx(2e-3 * last, rel=0.1)
    assert torch.tensor(rates).min() > 0
