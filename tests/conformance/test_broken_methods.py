"""A stranger's method passes the suite, and every way of breaking it is found."""

from __future__ import annotations

import contextlib
import copy
import math
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from bhnbench_doubles.methods import Constant

from bhnbench.contract import Method
from bhnbench.errors import StopRunError
from bhnbench.space import Choice, Float, hyperparameter
from bhnbench.testing import MethodSuite
from bhnbench.testing.problems import KINDS


@dataclass
class Samples:
    """One trained network, and small noise so that samples differ."""

    network: torch.nn.Module

    def sample(self, inputs, n_samples, *, rng):
        outputs = self.network(inputs)
        noise = torch.randn(n_samples, 1, 1, generator=rng, dtype=outputs.dtype)
        return outputs + 0.01 * noise


@dataclass(frozen=True, kw_only=True)
class Honest(Method):
    """Keeps every law."""

    learning_rate: float = hyperparameter(
        1e-2, "step size of Adam", valid=Float(1e-6, 1), search=Float(1e-3, 1e-1, log=True)
    )

    def fit(self, problem, *, rng, report, warm_start=None):
        network = self.start(problem, rng, warm_start)
        optimizer = torch.optim.Adam(network.parameters(), lr=self.learning_rate)
        for epoch in range(1, problem.epochs + 1):
            order = torch.randperm(len(problem.train), generator=rng)
            for rows in order.split(problem.batch_size):
                outputs = network(problem.train.inputs[rows])
                loss = -problem.likelihood.log_prob(outputs, problem.train.targets[rows]).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            report(epoch, {"train_nll": loss.item()})
        return Samples(network.eval())

    def start(self, problem, rng, warm_start):
        if warm_start is not None:
            return copy.deepcopy(warm_start.network).train()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch.randint(2**62, (), generator=rng).item())
            return problem.network()


class TestHonest(MethodSuite):
    method = Honest


class TestHonestInstance(MethodSuite):
    method = Honest(learning_rate=0.02)

    def test_the_instance_is_what_is_tested(self):
        assert self.bound() == Honest(learning_rate=0.02)


@dataclass
class Changed:
    """Samples changed by a function."""

    inner: Samples
    change: object

    def sample(self, inputs, n_samples, *, rng):
        return self.change(self.inner, inputs, self.inner.sample(inputs, n_samples, rng=rng))


def changing(name, change):
    """An honest method whose samples are changed."""

    def fit(self, problem, **given):
        return Changed(Honest.fit(self, problem, **given), change)

    return dataclass(frozen=True, kw_only=True)(type(name, (Honest,), {"fit": fit}))


def poison_inputs(inner, inputs, outputs):
    inputs.data.mul_(2)
    return outputs


def forget_eval_mode(inner, inputs, outputs):
    inner.network.train()
    return outputs


SamplesLast = changing("SamplesLast", lambda inner, inputs, outputs: outputs.movedim(0, -1))
AlwaysFloat32 = changing("AlwaysFloat32", lambda inner, inputs, outputs: outputs.float())
Detached = changing("Detached", lambda inner, inputs, outputs: outputs.detach())
HalfDetached = changing(
    "HalfDetached", lambda inner, inputs, outputs: outputs / 2 + outputs.detach() / 2
)
Centred = changing(
    "Centred", lambda inner, inputs, outputs: outputs - outputs.mean(1, keepdim=True)
)
HoldsAFunction = changing("HoldsAFunction", forget_eval_mode)
Unpicklable = changing("Unpicklable", lambda inner, inputs, outputs: outputs)
PoisonsInputs = changing("PoisonsInputs", poison_inputs)
TrainsWhileSampling = changing("TrainsWhileSampling", forget_eval_mode)


class GlobalInit(Honest):
    def start(self, problem, rng, warm_start):
        return problem.network()


class FixedSeed(Honest):
    def fit(self, problem, *, rng, report, warm_start=None):
        fixed = torch.Generator().manual_seed(0)
        return super().fit(problem, rng=fixed, report=report, warm_start=warm_start)


class SetsThreads(Honest):
    def fit(self, problem, **given):
        torch.set_num_threads(2)
        return super().fit(problem, **given)


class Standardises(Honest):
    def fit(self, problem, **given):
        problem.train.inputs.sub_(problem.train.inputs.mean(0))
        return super().fit(problem, **given)


class Remembers(Honest):
    n_fits: ClassVar[list[int]] = []

    def start(self, problem, rng, warm_start):
        self.n_fits.append(1)
        torch.rand(len(self.n_fits), generator=rng)
        return super().start(problem, rng, warm_start)


@dataclass(frozen=True, kw_only=True)
class Idle(Honest):
    depth: str = hyperparameter("deep", "is used by nobody", valid=Choice("deep", "shallow"))


class Untrained(Honest):
    def fit(self, problem, *, rng, report, warm_start=None):
        return Samples(self.start(problem, rng, None).eval())


class ColdStart(Honest):
    def start(self, problem, rng, warm_start):
        return super().start(problem, rng, None)


class SpoilsWarmStart(Honest):
    def start(self, problem, rng, warm_start):
        return super().start(problem, rng, None) if warm_start is None else warm_start.network


class CountsDown(Honest):
    def fit(self, problem, *, report, **given):
        return super().fit(problem, report=lambda step, found: report(-step, found), **given)


class ReportsNan(Honest):
    def fit(self, problem, *, report, **given):
        return super().fit(problem, report=lambda step, _: report(step, {"x": math.nan}), **given)


class SwallowsStop(Honest):
    def fit(self, problem, *, report, **given):
        def deaf(step, found):
            with contextlib.suppress(StopRunError):
                report(step, found)

        return super().fit(problem, report=deaf, **given)


class SharesRng(Honest):
    def fit_many(self, problems, *, rngs, **given):
        return super().fit_many(problems, rngs=[rngs[0]] * len(rngs), **given)


class LosesWarmStarts(Honest):
    def fit_many(self, problems, *, warm_starts, **given):
        return super().fit_many(problems, warm_starts=[None] * len(problems), **given)


class RefusesEverything(Honest):
    def supports(self, problem):
        return "it is on holiday"


@dataclass(kw_only=True)
class Thawed(Method):
    fit = Honest.fit


@dataclass(frozen=True, kw_only=True)
class SearchesElsewhere(Honest):
    """Its search never meets its default."""

    rate: float = hyperparameter(0.0, "a rate", valid=Float(0, 1), search=Float(0.1, 1))


@dataclass(frozen=True, kw_only=True)
class SearchesTooFar(Honest):
    rate: float = hyperparameter(0.5, "a rate", valid=Float(0, 1), search=Float(0, 2))


@dataclass(frozen=True, kw_only=True)
class BadDefault(Honest):
    rate: float = hyperparameter(2.0, "a rate", valid=Float(0, 1))


@dataclass(frozen=True, kw_only=True)
class Undocumented(Honest):
    rate: float = 0.5


@dataclass(frozen=True, kw_only=True)
class NotPlain(Honest):
    sizes: tuple[int, ...] = (1, 2)


BLOBS, LINE, IMAGES = ({"kind": kind} for kind in KINDS)
DOUBLE = IMAGES | {"dtype": torch.float64}
BROKEN = [
    (Thawed, "is_declared_well", {}, "frozen=True"),
    (SearchesElsewhere, "is_declared_well", {}, "rate: its default must lie in the search space"),
    (SearchesTooFar, "is_declared_well", {}, r"rate: search \[0, 2\] must lie within valid"),
    (BadDefault, "is_declared_well", {}, "rate: its default must be in"),
    (Undocumented, "is_declared_well", {}, "rate must say what it means"),
    (NotPlain, "configuration_survives_json", {}, "JSON"),
    (RefusesEverything, "supports_something", {}, "it is on holiday"),
    (Constant, "samples_come_first", BLOBS, r"\(7, 5, 3\), but got \(7, 5, 1"),
    (SamplesLast, "samples_come_first", LINE, "must have shape"),
    (
        AlwaysFloat32,
        "floating_type_is_kept",
        IMAGES | {"dtype": torch.float64},
        "must be torch.float64",
    ),
    (Detached, "differentiable_in_inputs", LINE, "must be differentiable"),
    (HalfDetached, "differentiable_in_inputs", IMAGES, "finite differences"),
    (Centred, "examples_do_not_mix", LINE, "rest of its batch"),
    (TrainsWhileSampling, "examples_do_not_mix", IMAGES, "eval mode"),
    (GlobalInit, "same_seed_same_samples", LINE, "the initialisation too"),
    (GlobalInit, "global_state_is_untouched", IMAGES, "torch's global random stream"),
    (SetsThreads, "global_state_is_untouched", IMAGES, "number of threads"),
    (FixedSeed, "other_seed_other_samples", LINE, "must give other samples"),
    (Standardises, "problem_and_inputs_are_untouched", IMAGES, "changed train.inputs"),
    (PoisonsInputs, "problem_and_inputs_are_untouched", IMAGES, "changed validation.inputs"),
    (Remembers, "one_fit_leaves_nothing_to_the_next", {}, "earlier ones in the process"),
    (HoldsAFunction, "predictive_can_be_kept", {}, "must fit in a checkpoint: a checkpoint"),
    (Unpicklable, "predictive_is_picklable", LINE, "must be picklable"),
    (Idle, "every_hyperparameter_changes_the_fit", {}, "'depth': .'deep', 'shallow'"),
    (Constant, "other_seed_other_samples", LINE, "must give other samples"),
    (Untrained, "learns", BLOBS, "must beat a guess"),
    (ColdStart, "warm_start_goes_on", {}, "one epoch with warm_start must beat"),
    (SpoilsWarmStart, "warm_start_goes_on", {}, "must not change warm_start"),
    (CountsDown, "reports_are_increasing_and_finite", {}, "increasing whole numbers"),
    (ReportsNan, "reports_are_increasing_and_finite", {}, "'x': nan"),
    (SwallowsStop, "report_can_end_the_fit", {}, "swallowed"),
    (SharesRng, "many_fits_equal_a_loop", LINE | {"warm": False}, "a loop over fit"),
    (LosesWarmStarts, "many_fits_equal_a_loop", LINE | {"warm": True}, "a loop over fit"),
]


def name_of(value):
    return value.__name__ if isinstance(value, type) else None


@pytest.mark.parametrize(("broken", "law", "given", "message"), BROKEN, ids=name_of)
def test_law_finds(broken, law, given, message):
    suite = type("Suite", (MethodSuite,), {"method": broken})()
    with pytest.raises(AssertionError, match=message):
        getattr(suite, f"test_{law}")(**given)


def test_no_law_is_without_a_method_that_breaks_it():
    laws = {name.removeprefix("test_") for name in dir(MethodSuite) if name.startswith("test_")}
    assert laws == {law for _, law, _, _ in BROKEN}


def test_what_is_idle_may_be_declared_and_is_then_checked():
    content = {"method": Idle, "without_effect": ("depth",)}
    type("Suite", (MethodSuite,), content)().test_every_hyperparameter_changes_the_fit()
    wrong = type("Suite", (MethodSuite,), content | {"method": Honest})()
    with pytest.raises(AssertionError, match=r"names \['depth'\], but only \[\] have none"):
        wrong.test_every_hyperparameter_changes_the_fit()


def test_what_is_not_supported_is_skipped_with_its_reason():
    suite = type("Suite", (MethodSuite,), {"method": RefusesEverything})()
    with pytest.raises(pytest.skip.Exception, match="it is on holiday"):
        suite.test_learns("regression")
