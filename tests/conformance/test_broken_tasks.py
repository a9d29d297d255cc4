"""A stranger's task passes the suite, and every way of breaking it is found."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np
import pytest
import torch

from bhnbench.contract import Draw, Metric, Outcome, Problem, Split, Task
from bhnbench.errors import StopRunError
from bhnbench.likelihoods import Gaussian
from bhnbench.metrics import LOG_LIKELIHOOD, RMSE
from bhnbench.space import Float, Int, hyperparameter, setting
from bhnbench.testing import TaskSuite


def draw_scores(outcomes):
    from matplotlib.figure import Figure

    figure = Figure()
    figure.subplots().bar(list(outcomes), [runs[0].scores["rmse"] for runs in outcomes.values()])
    return figure


def draw_with_pyplot(outcomes):
    import matplotlib.pyplot as plt

    return plt.figure()


@dataclass(frozen=True, kw_only=True)
class Honest(Task):
    """Three fits to the same noisy line; keeps every law."""

    metrics: ClassVar[tuple[Metric, ...]] = (LOG_LIKELIHOOD, RMSE)
    figures: ClassVar[Mapping[str, Draw]] = {"scores": draw_scores}

    n: int = setting(16, "examples in a split", valid=Int(2, 100))

    def evaluate(self, fit, *, holdout, rng, report, checkpoint):
        data = self.draw(rng)
        parts = checkpoint.load() or []
        for part in range(len(parts) + 1, 4):
            predictive = fit(self.problem(data, holdout), report=None)
            scored = self.scored(data, holdout)
            outputs = predictive.sample(scored.inputs, 5, rng=rng).detach()
            parts = [*parts, Gaussian().scores(outputs, scored.targets)]
            report(part, parts[-1])
            checkpoint.save(parts)
        return self.outcome({name: np.array([p[name] for p in parts]) for name in parts[0]})

    def draw(self, rng):
        splits = {}
        for name in ("train", "validation", "test"):
            x, noise = torch.randn(2, self.n, 1, generator=rng)
            splits[name] = Split(x, x + noise)
        return splits

    def problem(self, data, holdout):
        network = partial(torch.nn.Linear, 1, 2)
        return Problem(data["train"], data["validation"], Gaussian(), network, 2, 4)

    def scored(self, data, holdout):
        return data[holdout]

    def outcome(self, parts):
        return Outcome(
            {name: float(column.mean()) for name, column in parts.items()}, {"p": parts}
        )


class TestHonest(TaskSuite):
    task = Honest
    settings: ClassVar = {"n": 8}

    def test_the_settings_are_those_of_the_suite(self):
        assert self.bound() == Honest(n=8)


def joined(*splits):
    inputs = torch.cat([split.inputs for split in splits])
    return Split(inputs, torch.cat([split.targets for split in splits]))


def first_half(split):
    return Split(split.inputs[::2], split.targets[::2])


class TrainsOnTest(Honest):
    def problem(self, data, holdout):
        return replace(super().problem(data, holdout), train=joined(data["train"], data["test"]))


class ValidatesOnTest(Honest):
    def problem(self, data, holdout):
        return replace(super().problem(data, holdout), validation=data["test"])


class RefitsBeforeTest(Honest):
    def problem(self, data, holdout):
        problem = super().problem(data, holdout)
        train = joined(data["train"], data["validation"])
        return problem if holdout == "validation" else replace(problem, train=train)


class PeeksAtTest(Honest):
    def scored(self, data, holdout):
        return data[holdout] if holdout == "test" else joined(data["validation"], data["test"])


class PeeksAtHalfOfTest(Honest):
    def scored(self, data, holdout):
        peek = joined(data["validation"], first_half(data["test"]))
        return data[holdout] if holdout == "test" else peek


class HasNoTest(Honest):
    def scored(self, data, holdout):
        return data["validation"]


class Overlaps(Honest):
    def problem(self, data, holdout):
        problem = super().problem(data, holdout)
        return replace(problem, validation=first_half(data["train"]))


class FavoursSome(Honest):
    """Its data come after a stream that the fit has moved."""

    def evaluate(self, fit, *, holdout, rng, report, checkpoint):
        torch.rand(len(fit.fit_points) + fit.fit_seed, generator=rng)
        run = super().evaluate
        return run(fit, holdout=holdout, rng=rng, report=report, checkpoint=checkpoint)


class GlobalNoise(Honest):
    def draw(self, rng):
        data = super().draw(rng)
        return {**data, "train": Split(data["train"].inputs, torch.randn(self.n, 1))}


class FixedSeed(Honest):
    def evaluate(self, fit, *, holdout, rng, report, checkpoint):
        rng.manual_seed(0)
        run = super().evaluate
        return run(fit, holdout=holdout, rng=rng, report=report, checkpoint=checkpoint)


class Standardises(Honest):
    """Changes its data in place between fits."""

    def scored(self, data, holdout):
        data["train"].inputs.sub_(1)
        return super().scored(data, holdout)


class ForgetsPart(Honest):
    """Goes on from its checkpoint one part too early."""

    def evaluate(self, fit, *, checkpoint, **given):
        load = checkpoint.load
        checkpoint.load = lambda: (load() or [])[:-1]
        return super().evaluate(fit, checkpoint=checkpoint, **given)


class KeepsTooLittle(Honest):
    """The stream that it scores with starts again when a run goes on."""

    def evaluate(self, fit, *, checkpoint, rng, **given):
        load, start = checkpoint.load, rng.get_state()

        def load_less():
            state = load()
            rng.set_state(start)
            return state

        checkpoint.load = load_less
        return super().evaluate(fit, checkpoint=checkpoint, rng=rng, **given)


class SwallowsStop(Honest):
    def evaluate(self, fit, *, report, **given):
        def deaf(step, found):
            with contextlib.suppress(StopRunError):
                report(step, found)

        return super().evaluate(fit, report=deaf, **given)


class CountsDown(Honest):
    def evaluate(self, fit, *, report, **given):
        return super().evaluate(fit, report=lambda step, found: report(-step, found), **given)


class ForgetsScore(Honest):
    def outcome(self, parts):
        return Outcome({"rmse": 1.0})


class ScoresNan(Honest):
    def outcome(self, parts):
        return Outcome({"rmse": 1.0, "log_likelihood": float("nan")})


class RaggedTable(Honest):
    def outcome(self, parts):
        ragged = {"short": np.zeros(2), "long": np.zeros(3)}
        return replace(super().outcome(parts), tables={"ragged": ragged})


class HidesObjects(Honest):
    def outcome(self, parts):
        hidden = {"column": np.array([{}, None], dtype=object)}
        return replace(super().outcome(parts), tables={"hidden": hidden})


KeepsFigures = type("KeepsFigures", (Honest,), {"figures": {"kept": draw_with_pyplot}})
DrawsNothing = type("DrawsNothing", (Honest,), {"figures": {"nothing": lambda outcomes: None}})
Sideways = type("Sideways", (Honest,), {"metrics": (Metric("rmse", "sideways", "%"),)})
Twins = type("Twins", (Honest,), {"metrics": (RMSE, RMSE)})
NEW_DIGEST = property(lambda task: str(torch.rand(())))
NewDigest = type("NewDigest", (Honest,), {"data_digest": NEW_DIGEST})


@dataclass(frozen=True, kw_only=True)
class Searched(Honest):
    rate: float = hyperparameter(0.5, "a rate", search=Float(0, 1))


@dataclass(frozen=True, kw_only=True)
class NotPlain(Honest):
    sizes: tuple[int, ...] = (1, 2)


VALIDATION, TEST = {"holdout": "validation"}, {"holdout": "test"}
BROKEN = [
    (Searched, "is_declared_well", {}, "must have no search space, but rate"),
    (NotPlain, "settings_survive_json", {}, "JSON"),
    (Sideways, "metrics_are_declared", {}, "direction is 'sideways'"),
    (Twins, "metrics_are_declared", {}, "metrics must differ"),
    (NewDigest, "data_digest_is_stable", {}, "must stay the same"),
    (ForgetsScore, "scores_are_the_declared_ones", VALIDATION, r"but are \['rmse'\]"),
    (ScoresNan, "scores_are_the_declared_ones", TEST, "'log_likelihood': nan"),
    (RaggedTable, "columns_of_a_table_have_one_length", TEST, "ragged"),
    (HidesObjects, "columns_of_a_table_have_one_length", TEST, "column"),
    (KeepsFigures, "figures_draw", {}, "pyplot"),
    (DrawsNothing, "figures_draw", {}, "must be a matplotlib Figure, but is None"),
    (CountsDown, "reports_are_increasing_and_finite", VALIDATION, r"\[-1, -2, -3\]"),
    (SwallowsStop, "report_can_end_the_run", {}, "swallowed"),
    (GlobalNoise, "same_seed_same_outcome", VALIDATION, "problem 0"),
    (GlobalNoise, "global_state_is_untouched", {}, "torch's global random stream"),
    (FixedSeed, "other_seed_other_outcome", {}, "must give another outcome"),
    (Standardises, "problems_are_untouched", TEST, "train.inputs changed after fit"),
    (ForgetsPart, "killed_run_goes_on", {}, "after save 1 of 3"),
    (KeepsTooLittle, "killed_run_goes_on", {}, "scores.rmse"),
    (FavoursSome, "first_problem_does_not_depend_on_method", {}, "train.inputs"),
    (RefitsBeforeTest, "problems_do_not_depend_on_holdout", {}, "differs in train.inputs"),
    (Overlaps, "train_and_validation_are_disjoint", {}, "share 8 inputs"),
    (TrainsOnTest, "test_data_never_reach_a_fit", {}, "16 inputs of the test split are in train"),
    (ValidatesOnTest, "test_data_never_reach_a_fit", {}, "are in validation of problem 0"),
    (PeeksAtTest, "search_never_samples_test_data", {}, "never samples"),
    (PeeksAtHalfOfTest, "search_never_samples_test_data", {}, "but 8 inputs"),
    (HasNoTest, "search_never_samples_test_data", {}, "all its inputs are sampled in both"),
]


def name_of(value):
    return value.__name__ if isinstance(value, type) else None


@pytest.fixture
def no_open_figures():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


@pytest.mark.usefixtures("no_open_figures")
@pytest.mark.parametrize(("broken", "law", "given", "message"), BROKEN, ids=name_of)
def test_law_finds(broken, law, given, message):
    suite = type("Suite", (TaskSuite,), {"task": broken})()
    with pytest.raises(AssertionError, match=message):
        getattr(suite, f"test_{law}")(**given)


def test_no_law_is_without_a_task_that_breaks_it():
    laws = {name.removeprefix("test_") for name in dir(TaskSuite) if name.startswith("test_")}
    assert laws == {law for _, law, _, _ in BROKEN}
