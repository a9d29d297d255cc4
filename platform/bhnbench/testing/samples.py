"""The laws of a predictive and of the randomness and state behind it."""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping
from typing import Any, ClassVar, cast

import pytest
import torch

from bhnbench.checkpoints import from_bytes, to_bytes
from bhnbench.contract import Method, Problem
from bhnbench.space import Value
from bhnbench.testing import fields
from bhnbench.testing.comparison import copy_of, gap, same_bits, tensors_of
from bhnbench.testing.fitting import draw, fit
from bhnbench.testing.problems import KINDS, N_OUTPUTS, make_problem
from bhnbench.testing.state import other_globals, unchanged_globals

on_every_kind = pytest.mark.parametrize("kind", KINDS)


class SampleLaws:
    """The method under test, and the laws of its samples."""

    method: ClassVar[str | type[Method] | Method]
    settings: ClassVar[Mapping[str, Value]] = {}

    @property
    def name(self) -> str:
        """The method, in messages."""
        return fields.class_of("method", self.method).__name__

    def bound(self, **changes: Value) -> Method:
        """The method with the suite's settings and these changes."""
        cls: Any = fields.class_of("method", self.method)
        given = fields.given_settings(self.method)
        return cast("Method", cls(**{**given, **self.settings, **changes}))

    def is_supported(self, kind: str) -> bool:
        """Whether the method takes problems of a kind."""
        return self.bound().supports(make_problem(kind)) is None

    def first_kind(self) -> str:
        """A kind that the method supports."""
        return next(filter(self.is_supported, KINDS), KINDS[0])

    def problem(self, kind: str, **options: Any) -> Problem:  # noqa: ANN401
        """A problem of a kind, or a skip with the method's reason."""
        problem = make_problem(kind, **options)
        reason = self.bound().supports(problem)
        if reason is not None:
            pytest.skip(f"{self.name} does not support the {kind} problem: {reason}")
        return problem

    # Outputs

    @on_every_kind
    def test_samples_come_first(self, kind: str) -> None:
        """Outputs are ``(n_samples, n, n_outputs)``, also for one sample or one example."""
        problem = self.problem(kind)
        predictive = fit(self.bound(), problem)
        for n_samples, n in ((7, 5), (1, 5), (7, 1), (1, 1)):
            outputs = draw(predictive, problem.validation.inputs[:n], n_samples=n_samples)
            expected = (n_samples, n, N_OUTPUTS[kind])
            assert tuple(outputs.shape) == expected, (
                f"{self.name}: {n_samples} samples for {n} examples of the {kind} problem must "
                f"have shape {expected}, but got {tuple(outputs.shape)}"
            )
            assert outputs.isfinite().all(), f"{self.name}: outputs must be finite ({kind})"

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
    @on_every_kind
    def test_floating_type_is_kept(self, kind: str, dtype: torch.dtype) -> None:
        """Outputs have the type of the problem's inputs."""
        problem = self.problem(kind, dtype=dtype)
        outputs = draw(fit(self.bound(), problem), problem.validation.inputs)
        assert outputs.dtype == dtype, (
            f"{self.name}: outputs must be {dtype} like the inputs, but are {outputs.dtype}"
        )

    @on_every_kind
    def test_differentiable_in_inputs(self, kind: str) -> None:
        """The gradient is that of finite differences, in float64 and with one random stream."""
        problem = self.problem(kind, dtype=torch.float64)
        predictive = fit(self.bound(), problem)
        inputs = problem.validation.inputs[:4].clone().requires_grad_()
        outputs = draw(predictive, inputs)
        assert outputs.requires_grad, f"{self.name}: outputs must be differentiable in the inputs"
        (gradient,) = torch.autograd.grad(outputs.square().sum(), inputs)
        way = torch.ones_like(inputs) / math.sqrt(inputs.numel())
        ahead, behind = (
            draw(predictive, (inputs + step * way).detach()).square().sum().item()
            for step in (1e-5, -1e-5)
        )
        actual, expected = (gradient * way).sum().item(), (ahead - behind) / 2e-5
        assert actual == pytest.approx(expected, rel=1e-4, abs=1e-6), (
            f"{self.name}: the gradient in the inputs must be that of finite differences, "
            f"{expected:g}, but is {actual:g} ({kind})"
        )
        assert gradient.abs().sum() > 0, (
            f"{self.name}: the gradient in the inputs is zero ({kind})"
        )

    @on_every_kind
    def test_examples_do_not_mix(self, kind: str) -> None:
        """Outputs of an example do not depend on its batch: batch normalisation is frozen."""
        problem = self.problem(kind, dtype=torch.float64)
        predictive = fit(self.bound(), problem)
        inputs = problem.validation.inputs[:8]
        others = torch.cat([inputs[:4], 10 + 10 * inputs[4:]])
        first, second = draw(predictive, inputs)[:, :4], draw(predictive, others)[:, :4]
        assert torch.allclose(first, second, rtol=1e-9, atol=1e-9), (
            f"{self.name}: outputs of an example must not depend on the rest of its batch, but "
            f"{gap(first, second)} ({kind}); sample in eval mode"
        )
        again = draw(predictive, inputs)[:, :4]
        assert same_bits(first, again), (
            f"{self.name}: sampling must not change the predictive, but before and after "
            f"{gap(first, again)} ({kind})"
        )

    # Randomness and state

    @on_every_kind
    def test_same_seed_same_samples(self, kind: str) -> None:
        """Bit for bit, whatever the global random streams hold."""
        problem = self.problem(kind)
        samples = []
        for global_seed in (1, 2):
            with other_globals(global_seed):
                predictive = fit(self.bound(), problem)
                samples.append(draw(predictive, problem.validation.inputs))
        assert same_bits(*samples), (
            f"{self.name}: the same rng must give the same samples bit for bit, but "
            f"{gap(*samples)} ({kind}); draw everything from rng, the initialisation too"
        )

    @on_every_kind
    def test_other_seed_other_samples(self, kind: str) -> None:
        """The fit draws from its rng."""
        problem = self.problem(kind)
        first, second = (
            draw(fit(self.bound(), problem, seed=seed), problem.validation.inputs)
            for seed in (1, 2)
        )
        assert not same_bits(first, second), (
            f"{self.name}: another rng for the fit must give other samples, but they are equal "
            f"({kind}); initialise and shuffle with rng"
        )

    @on_every_kind
    def test_problem_and_inputs_are_untouched(self, kind: str) -> None:
        """A problem is shared by many fits."""
        problem = self.problem(kind)
        before = copy_of(problem)
        self.bound().supports(problem)
        predictive = fit(self.bound(), problem)
        draw(predictive, problem.validation.inputs)
        for name, tensor in tensors_of(problem).items():
            untouched = same_bits(tensor, tensors_of(before)[name]) and not tensor.requires_grad
            assert untouched, f"{self.name} must not change the problem, but changed {name}"

    @on_every_kind
    def test_global_state_is_untouched(self, kind: str) -> None:
        """Random streams, dtype, threads and the like stay as they are."""
        problem, method = self.problem(kind), self.bound()
        with unchanged_globals(f"{self.name}.supports"):
            method.supports(problem)
        with unchanged_globals(f"{self.name}.fit"):
            predictive = fit(method, problem)
        with unchanged_globals(f"{self.name}'s predictive"):
            draw(predictive, problem.validation.inputs)

    def test_one_fit_leaves_nothing_to_the_next(self) -> None:
        """A, B, A: a worker runs many fits, and the same fit gives the same samples again."""
        kind = self.first_kind()
        problem, method = self.problem(kind), self.bound()
        first = draw(fit(method, problem), problem.validation.inputs)
        for other in filter(self.is_supported, KINDS):
            fit(method, make_problem(other, seed=5, epochs=1), seed=7)
        again = draw(fit(method, problem), problem.validation.inputs)
        assert same_bits(first, again), (
            f"{self.name}: a fit must not depend on earlier ones in the process, but repeated "
            f"after others {gap(first, again)}"
        )

    def test_predictive_can_be_kept(self) -> None:
        """A checkpoint is read without running code: no functions in it, no strangers' classes."""
        problem, method = self.problem(self.first_kind()), self.bound()
        own = [type(method).__module__.partition(".")[0]]  # also where it is not registered yet
        predictive = fit(method, problem)
        try:
            back = from_bytes(to_bytes(predictive, own), own)
        except Exception as error:  # pickle raises whatever an object's hooks do
            raise AssertionError(
                f"{self.name}'s predictive must fit in a checkpoint: {error}"
            ) from error
        first, second = (draw(p, problem.validation.inputs) for p in (predictive, back))
        assert same_bits(first, second), (
            f"{self.name}: a predictive out of a checkpoint must sample the same, but "
            f"{gap(first, second)}"
        )

    @on_every_kind
    def test_predictive_is_picklable(self, kind: str) -> None:
        """It may be handed to another process."""
        problem = self.problem(kind)
        predictive = fit(self.bound(), problem)
        try:
            back = pickle.loads(pickle.dumps(predictive))
        except Exception as error:  # pickle raises whatever an object's hooks do
            raise AssertionError(f"{self.name}'s predictive must be picklable: {error}") from error
        first, second = (draw(p, problem.validation.inputs) for p in (predictive, back))
        assert same_bits(first, second), (
            f"{self.name}: an unpickled predictive must sample the same, but {gap(first, second)}"
        )
