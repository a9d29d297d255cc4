"""Proposes a study's configurations: an Optuna study in memory, rebuilt from the ledger."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping, Sequence

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)  # fmt: skip
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from bhnbench.ledger.records import TrialRecord
from bhnbench.runs import Point, RunState
from bhnbench.seeds import derive_seed
from bhnbench.space import Choice, Int, Space, Value
from bhnbench.specs import StudySpec

N_STARTUP_TRIALS = 5  # random trials before TPE models anything; searches here are short
_STATES = {"done": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


def to_distribution(space: Space) -> BaseDistribution:
    """Optuna's name for a search space."""
    if isinstance(space, Choice):
        return CategoricalDistribution(space.values)
    if isinstance(space, Int):
        return IntDistribution(space.low, space.high, log=space.log)
    return FloatDistribution(space.low, space.high, log=space.log)


class Proposer:
    """One Optuna study. Trial 0 is the default; trial ``k`` depends on what was told before."""

    def __init__(self, study: StudySpec) -> None:
        if study.search is None:
            raise ValueError("a study without search has nothing to propose")
        self._spec = study
        self._search = study.search
        self._distributions = {name: to_distribution(s) for name, s in study.space.items()}
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(direction=study.direction)
        self._open: dict[int, Trial] = {}
        self._grid = _grid(study) if self._search.sampler == "grid" else None

    def ask(self, number: int) -> dict[str, Value]:
        """The configuration of trial ``number``."""
        if self._grid is not None:
            return self._grid[number]
        self._study.sampler = self._sampler(number)
        if number == 0:
            defaults = {name: self._spec.method.settings[name] for name in self._distributions}
            self._study.enqueue_trial(defaults)
        trial = self._study.ask(self._distributions)
        self._open[number] = trial
        return dict(trial.params)

    def tell(
        self, number: int, state: RunState, value: float | None, points: list[tuple[int, float]]
    ) -> None:
        """How a trial that was asked for ended; ``points`` are its (step, value) reports."""
        trial = self._open.pop(number, None)
        if trial is None:  # of a grid
            return
        for step, reported in points:
            trial.report(reported, step)
        self._study.tell(trial, value if state == "done" else None, _STATES[state])

    def restore(self, trial: TrialRecord, points: list[tuple[int, float]]) -> None:
        """Take in a trial that ended before this process began."""
        if self._grid is None and trial.settled:
            self._study.add_trial(self._frozen(trial, points))

    def reopen(self, trial: TrialRecord) -> None:
        """Take in a trial that is to be executed again, with the same configuration."""
        if self._grid is None:
            self._study.enqueue_trial(dict(trial.configuration))
            self._open[trial.number] = self._study.ask(self._distributions)

    def _sampler(self, number: int) -> BaseSampler:
        # A seed of its own for each trial: a sampler made anew must not repeat the first ones.
        seed = derive_seed(study=self._spec.key, trial=number) % 2**32
        if self._search.sampler == "random":
            return RandomSampler(seed=seed)
        with warnings.catch_warnings():  # multivariate and constant_liar are marked experimental
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return TPESampler(
                seed=seed,
                n_startup_trials=N_STARTUP_TRIALS,
                multivariate=True,
                constant_liar=True,
            )

    def _frozen(self, trial: TrialRecord, points: list[tuple[int, float]]) -> FrozenTrial:
        return create_trial(
            state=_STATES[trial.state],
            value=trial.value if trial.state == "done" else None,
            params=dict(trial.configuration),
            distributions=self._distributions,
            intermediate_values=dict(points),
        )


def metric_points(points: Sequence[Point], metric: str) -> list[tuple[int, float]]:
    """The (step, value) reports of one metric."""
    return [(step, metrics[metric]) for step, metrics in points if metric in metrics]


def _grid(study: StudySpec) -> list[dict[str, Value]]:
    """All points of a grid; the one nearest to the defaults first."""
    names = list(study.space)
    default = {
        name: space.nearest(study.method.settings[name]) for name, space in study.space.items()
    }
    values = [space.values for space in study.space.values() if isinstance(space, Choice)]
    points: list[Mapping[str, Value]] = [
        dict(zip(names, point, strict=True)) for point in itertools.product(*values)
    ]
    return [default, *(dict(point) for point in points if point != default)]
