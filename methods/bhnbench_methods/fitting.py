"""From a method's problems to trained models: build, warm-start, train together where possible."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from bhnbench.contract import Method, Predictive, Problem, Report
from bhnbench.errors import ContractError, UnsupportedError
from bhnbench.space import Float, check_settings, hyperparameter
from bhnbench_methods.checks import (
    check_call,
    check_finite,
    check_outputs,
    check_problem,
    kind_of,
)
from bhnbench_methods.diagnostics import check_posterior
from bhnbench_methods.models import Model, constants, is_stackable, structure
from bhnbench_methods.rehearsal import check_trainable, network_explained, predict, rehearse
from bhnbench_methods.schedules import constant, tenfold_decay
from bhnbench_methods.streams import Streams, seeded
from bhnbench_methods.training import Recipe, alike, train

_TAKES_NO_PRIOR = "it cannot take an earlier posterior as its prior"


@dataclass(frozen=True, kw_only=True)
class TrainedMethod(Method):
    """A method whose models the shared loop trains, replicas together."""

    version: ClassVar[str] = "3"  # of the loop as well: its numbers are every method's

    learning_rate: float = hyperparameter(
        1e-3, "step size of Adam", valid=Float(1e-8, 10), search=Float(1e-4, 1e-2, log=True)
    )
    lr_decay: bool = hyperparameter(
        False, "lower the learning rate tenfold over the fit, evenly on a log scale"
    )

    def __post_init__(self) -> None:
        check_settings(self)

    @abstractmethod
    def make_model(self, problem: Problem) -> Model:
        """The model before training; it initialises itself from torch's global stream.

        Raises:
            UnsupportedError: the problem's network cannot be what the method makes of it.
        """

    def recipe(self) -> Recipe:
        """How to train it."""
        schedule = tenfold_decay if self.lr_decay else constant
        return Recipe(learning_rate=self.learning_rate, lr_schedule=schedule)

    def supports(self, problem: Problem) -> str | None:
        """Why it cannot be trained or used, found by making and running a model, or None.

        Two examples pass through it as in training and as in prediction. Nothing else knows what
        a network does with its layers.
        """
        if problem.prior is not None and not self.takes_prior:
            return _TAKES_NO_PRIOR
        try:
            check_problem(problem)
            rehearse(_make(self, problem, seed=0), problem)
        except (UnsupportedError, ContractError) as error:
            return str(error)
        return None

    def check_priors(self, problems: Sequence[Problem]) -> None:
        """Refuse a problem with a prior, unless the method takes one.

        Raises:
            UnsupportedError: it does not.
        """
        if not self.takes_prior and any(problem.prior is not None for problem in problems):
            raise UnsupportedError(_TAKES_NO_PRIOR)

    def members_of(self, warm_start: Predictive | None) -> Sequence[Predictive | None]:
        """What each model of one fit goes on from; as many as there are models."""
        return [warm_start]

    def make_predictive(self, models: Sequence[Model]) -> Predictive:
        """The predictive of one fit's trained models."""
        return models[0]

    def fit(
        self,
        problem: Problem,
        *,
        rng: torch.Generator,
        report: Report,
        warm_start: Predictive | None = None,
    ) -> Predictive:
        """Fit one replica.

        Raises:
            ContractError: the arguments, the data, the budget or the network's outputs are not
                what they must be.
            UnsupportedError: the method cannot do this problem.
            DivergedError: a loss is no longer finite.
        """
        check_call(problem, rng, report)
        fits = self.fit_many([problem], rngs=[rng], reports=[report], warm_starts=[warm_start])
        return fits[0]

    def fit_many(
        self,
        problems: Sequence[Problem],
        *,
        rngs: Sequence[torch.Generator],
        reports: Sequence[Report],
        warm_starts: Sequence[Predictive | None],
    ) -> list[Predictive]:
        """Fit all replicas as one computation; an exception in one ends them all.

        Raises:
            UnsupportedError: a problem has a prior, but this method takes none.

        Warns:
            PosteriorWarning: a posterior has collapsed, or its samples are not finite.
        """
        self.check_priors(problems)
        models = fit_models(
            self,
            problems,
            rngs=rngs,
            reports=reports,
            warm_starts=[self.members_of(start) for start in warm_starts],
            recipe=self.recipe(),
        )
        predictives = [self.make_predictive(members) for members in models]
        for predictive, members, problem in zip(predictives, models, problems, strict=True):
            is_random = len(members) > 1 or members[0].is_random
            check_posterior(predictive, problem, is_random=is_random)
        return predictives


def fit_models(
    method: TrainedMethod,
    problems: Sequence[Problem],
    *,
    rngs: Sequence[torch.Generator],
    reports: Sequence[Report],
    warm_starts: Sequence[Sequence[Predictive | None]],
    recipe: Recipe,
) -> list[list[Model]]:
    """Fit as many models to a problem as it has warm starts, each None or an earlier model.

    All are trained as one computation where the problems are alike, else problem by problem.
    The first member of a problem is the model that a fit of one member would give, unless the
    network draws random numbers of its own (a Dropout layer): those come from one stream for all.

    Raises:
        ContractError: the data, the budget or the network's outputs are not what they must be,
            or a warm start is not the result of an earlier fit like this one.
        UnsupportedError: the network cannot be what the method makes of it.
    """
    for problem in problems:
        check_problem(problem)
        check_finite(problem)
    streams, models = [], []
    for problem, rng, members in zip(problems, rngs, warm_starts, strict=True):
        device = problem.train.inputs.device
        streams.append([Streams.draw(rng, device) for _ in members])
        pairs = zip(streams[-1], members, strict=True)
        models.append([_build(method, problem, s.init, start) for s, start in pairs])
        _check_members(models[-1])
        check_outputs(problem, predict(models[-1][0], problem))
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


def _check_members(models: Sequence[Model]) -> None:
    """The members of one fit are one computation with tensors of their own.

    Raises:
        UnsupportedError: they differ in more than tensors.
    """
    first, *others = map(constants, models)
    changed = [name for other in others for name, of in other.items() if of != first.get(name)]
    if changed:
        raise UnsupportedError(
            f"networks of several members must differ in tensors alone, but module {changed[0]!r} "
            "has other numbers, lists or arrays; draw them outside network(), or make them tensors"
        )


def _build(
    method: TrainedMethod, problem: Problem, seed: int, warm_start: Predictive | None
) -> Model:
    model = _make(method, problem, seed)
    model.made_by = type(method).__qualname__  # a name, for a pickle must not need the class
    if warm_start is not None:
        _continue_from(model, warm_start)
    return model


def _make(method: TrainedMethod, problem: Problem, seed: int) -> Model:
    with seeded(seed, problem.train.inputs.device), network_explained(problem):
        model = method.make_model(problem)
    check_trainable(model)
    return model


def _continue_from(model: Model, earlier: Predictive) -> None:
    """Copy the parameters and buffers of an earlier fit."""
    maker = earlier.made_by if isinstance(earlier, Model) else ""
    if maker != model.made_by or not isinstance(earlier, type(model)):
        got = f"one of {maker}" if maker else kind_of(earlier)
        raise ContractError(
            f"warm_start must be what an earlier fit of {model.made_by} returned, but got {got}"
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
    return same and _compute_alike(problems, models) and is_stackable(problems[0])


def _compute_alike(problems: Sequence[Problem], models: Sequence[Sequence[Model]]) -> bool:
    """Whether one model's ``forward`` may stand for all; equal shapes do not say so."""
    first, *others = [structure(members[0]) for members in models]
    return all(other == first for other in others)
