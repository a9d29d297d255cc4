"""From a method's problems to trained models: build, warm-start, train together where possible."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from bhnbench.contract import Method, Predictive, Problem, Report
from bhnbench.errors import ContractError
from bhnbench.space import Float, hyperparameter
from bhnbench_methods.models import Model
from bhnbench_methods.replicas import has_random_layers
from bhnbench_methods.streams import Streams, seeded
from bhnbench_methods.training import Recipe, alike, train

M = TypeVar("M", bound=Model)


@dataclass(frozen=True, kw_only=True)
class TrainedMethod(Method):
    """A method whose models the shared loop trains, replicas together."""

    learning_rate: float = hyperparameter(
        1e-3, "step size of Adam", valid=Float(1e-8, 10), search=Float(1e-4, 1e-2, log=True)
    )
    lr_decay: bool = hyperparameter(
        False, "lower the learning rate tenfold over the fit, evenly on a log scale"
    )

    def fit(
        self,
        problem: Problem,
        *,
        rng: torch.Generator,
        report: Report,
        warm_start: Predictive | None = None,
    ) -> Predictive:
        """Fit one replica."""
        fits = self.fit_many([problem], rngs=[rng], reports=[report], warm_starts=[warm_start])
        return fits[0]

    @abstractmethod
    def fit_many(
        self,
        problems: Sequence[Problem],
        *,
        rngs: Sequence[torch.Generator],
        reports: Sequence[Report],
        warm_starts: Sequence[Predictive | None],
    ) -> list[Predictive]:
        """Fit all replicas as one computation; an exception in one ends them all."""


def fit_models(
    make: Callable[[Problem], M],
    problems: Sequence[Problem],
    *,
    rngs: Sequence[torch.Generator],
    reports: Sequence[Report],
    warm_starts: Sequence[Sequence[Predictive | None]],
    recipe: Recipe,
) -> list[list[M]]:
    """Fit as many models to a problem as it has warm starts, each None or an earlier model.

    All are trained as one computation where the problems are alike, else problem by problem.
    The first member of a problem is the model that a fit of one member would give.

    Raises:
        ContractError: a warm start is not the result of an earlier fit like this one.
    """
    streams, models = [], []
    for problem, rng, members in zip(problems, rngs, warm_starts, strict=True):
        device = problem.train.inputs.device
        streams.append([Streams.draw(rng, device) for _ in members])
        pairs = zip(streams[-1], members, strict=True)
        models.append([_build(make, problem, s.init, start) for s, start in pairs])
    everything = range(len(problems))
    groups = [everything] if _stackable(problems, models) else [[i] for i in everything]
    for group in groups:
        train(
            [model for i in group for model in models[i]],
            [problems[i] for i in group for _ in models[i]],
            [stream for i in group for stream in streams[i]],
            [reports[i] for i in group],
            recipe,
        )
    return models


def _build(
    make: Callable[[Problem], M], problem: Problem, seed: int, warm_start: Predictive | None
) -> M:
    with seeded(seed, problem.train.inputs.device):
        model = make(problem)
    if warm_start is not None:
        _continue_from(model, warm_start)
    return model


def _continue_from(model: Model, earlier: Predictive) -> None:
    """Copy the parameters and buffers of an earlier fit."""
    if not isinstance(earlier, type(model)):
        got = type(earlier).__name__
        raise ContractError(
            f"warm_start must be what an earlier fit of this method returned, but got a {got}"
        )
    ours, theirs = _shapes(model), _shapes(earlier)
    if ours != theirs:
        names = sorted({name for name, _ in ours ^ theirs})
        raise ContractError(
            "warm_start must have the parameters of this configuration and network, but "
            f"these differ: {', '.join(names)}; fit anew or keep the architecture"
        )
    model.load_state_dict(earlier.state_dict())


def _shapes(model: Model) -> set[tuple[str, tuple[int, ...]]]:
    return {(name, tuple(tensor.shape)) for name, tensor in model.state_dict().items()}


def _stackable(problems: Sequence[Problem], models: Sequence[Sequence[Model]]) -> bool:
    """Whether replicas can share one computation with the results of separate ones."""
    if len(problems) == 1:
        return True
    shapes = [_shapes(members[0]) for members in models]
    same = alike(problems) and all(other == shapes[0] for other in shapes)
    return same and not has_random_layers(models[0][0])
