"""The laws of methods."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import ClassVar

import pytest
import torch

from bhnbench.contract import Method, Predictive
from bhnbench.errors import StopRunError
from bhnbench.space import Value, fields_of
from bhnbench.testing import fields
from bhnbench.testing.comparison import gap, same_bits
from bhnbench.testing.fitting import Listener, check_points, draw, fit, fit_rng
from bhnbench.testing.problems import KINDS, baseline, log_likelihood, make_problem
from bhnbench.testing.samples import SampleLaws, on_every_kind

_REPLICAS = ((0, 48), (1, 48), (2, 40))  # (seed, examples): two alike, one that is not


class MethodSuite(SampleLaws):
    """Subclass it, name a method, and let pytest collect it.

    ``method`` is an installed name, a class or an instance; ``settings`` are hyperparameters that
    differ from its defaults, a smaller network say. What a method does not support is skipped
    with its reason; at least one of the suite's problems must be left.
    """

    epochs_to_learn: ClassVar[int] = 150  # enough to beat a guess on an easy problem
    without_effect: ClassVar[Collection[str]] = ()  # hyperparameters that ``settings`` make idle
    values: ClassVar[Mapping[str, Sequence[Value]]] = {}  # to compare, of free text and the like

    # What is declared

    def test_is_declared_well(self) -> None:
        """A frozen dataclass; defaults are valid and search spaces lie within the valid values."""
        fields.check_declaration(fields.class_of("method", self.method))

    def test_configuration_survives_json(self) -> None:
        """As it is, and with every value that a search may pick."""
        method = self.bound()
        fields.check_survives_json(method)
        for name, field in fields_of(type(method)).items():
            for value in fields.ends_of(field.search):
                fields.check_survives_json(self.bound(**{name: value}))

    def test_supports_something(self) -> None:
        """At least one of the suite's problems; every refusal has a reason."""
        reasons = {kind: self.bound().supports(make_problem(kind)) for kind in KINDS}
        empty = [kind for kind, reason in reasons.items() if reason is not None and not reason]
        assert not empty, f"{self.name} must say why it does not support {', '.join(empty)}"
        assert None in reasons.values(), (
            f"{self.name} must support one of the suite's problems, but it says: {reasons}"
        )

    # Learning

    def test_every_hyperparameter_changes_the_fit(self) -> None:
        """Another value gives other samples or reports, on one of the problems at least."""
        idle = {}
        for name, field in fields_of(type(self.bound())).items():
            known = self.values.get(name) or fields.values_to_compare(field)
            values = [value for value in known if self._allows(name, value)]
            if len(values) > 1 and not self._matters(name, values):
                idle[name] = values
        expected = set(self.without_effect)
        assert idle.keys() <= expected, (
            f"{self.name}: every hyperparameter must change the fit, but these give the same "
            f"samples and reports: {idle}; remove them, use them, or name them in without_effect"
        )
        assert expected <= idle.keys(), (
            f"{self.name}: without_effect names {sorted(expected)}, but only {sorted(idle)} have "
            "none"
        )

    def _allows(self, name: str, value: Value) -> bool:
        """Whether the other settings go with it."""
        try:
            self.bound(**{name: value})
        except ValueError:
            return False
        return True

    def _matters(self, name: str, values: Sequence[Value]) -> bool:
        problems = [make_problem(kind) for kind in filter(self.is_supported, KINDS)]
        many_steps = make_problem(self.first_kind(), epochs=10, batch_size=4)
        for problem in [*problems, many_steps]:
            if any(self.bound(**{name: value}).supports(problem) for value in values):
                continue
            results = []
            for value in values:
                listener = Listener()
                predictive = fit(self.bound(**{name: value}), problem, listener=listener)
                samples = draw(predictive, problem.validation.inputs)
                results.append((samples.detach().numpy().tobytes(), listener.points))
            if any(result != results[0] for result in results[1:]):
                return True
        return False

    @on_every_kind
    def test_learns(self, kind: str) -> None:
        """After training it beats the best guess that ignores the inputs, on an easy problem."""
        problem = self.problem(kind, epochs=self.epochs_to_learn)
        reached = log_likelihood(_learned(self.bound(), kind, self.epochs_to_learn), problem)
        assert reached > baseline(problem), (
            f"{self.name}: after {problem.epochs} epochs the validation log-likelihood must beat "
            f"a guess, {baseline(problem):.3f} nats, but is {reached:.3f} ({kind})"
        )

    def test_warm_start_goes_on(self) -> None:
        """One epoch from an earlier fit is better than one epoch from nothing."""
        kind = self.first_kind()
        problem = self.problem(kind, epochs=1)
        earlier = _learned(self.bound(), kind, self.epochs_to_learn)
        before = draw(earlier, problem.validation.inputs)
        cold = log_likelihood(fit(self.bound(), problem, seed=2), problem)
        warm = log_likelihood(fit(self.bound(), problem, seed=2, warm_start=earlier), problem)
        assert warm > cold, (
            f"{self.name}: one epoch with warm_start must beat one without, {cold:.3f} nats on "
            f"validation data, but reached {warm:.3f}; start from what warm_start has learned"
        )
        after = draw(earlier, problem.validation.inputs)
        assert same_bits(before, after), f"{self.name} must not change warm_start, but it did"

    def test_reports_are_increasing_and_finite(self) -> None:
        """Steps are increasing whole numbers, metrics finite."""
        listener = Listener()
        fit(self.bound(), self.problem(self.first_kind()), listener=listener)
        check_points(listener.points, self.name)

    def test_report_can_end_the_fit(self) -> None:
        """``StopRunError`` raised by ``report`` goes through, and nothing is reported after."""
        problem, heard = self.problem(self.first_kind()), Listener()
        fit(self.bound(), problem, listener=heard)
        if not heard.points:
            pytest.skip("the method reports nothing")
        listener = Listener(stop_at=1)
        try:
            fit(self.bound(), problem, listener=listener)
        except StopRunError:
            n = len(listener.points)
            assert n == 1, f"{self.name} must report no more after StopRunError, but made {n}"
            return
        raise AssertionError(f"{self.name} must let StopRunError through, but swallowed it")

    @pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
    @on_every_kind
    def test_many_fits_equal_a_loop(self, kind: str, warm: bool) -> None:
        """``fit_many`` gives what a loop over ``fit`` gives, up to rounding."""
        method = self.bound()
        problems = [self.problem(kind, seed=s, n=n, dtype=torch.float64) for s, n in _REPLICAS]
        starts = [fit(method, problem, seed=9) if warm else None for problem in problems]
        heard = [Listener() for _ in problems]
        fitted = method.fit_many(
            problems,
            rngs=[fit_rng(seed) for seed in range(len(problems))],
            reports=heard,
            warm_starts=starts,
        )
        assert len(fitted) == len(problems), f"{self.name}: fit_many must return one a problem"
        for seed, (problem, start) in enumerate(zip(problems, starts, strict=True)):
            alone = Listener()
            single = fit(method, problem, seed=seed, listener=alone, warm_start=start)
            together, apart = (draw(p, problem.validation.inputs) for p in (fitted[seed], single))
            self._check_replica(together, apart, heard[seed], alone)

    def _check_replica(
        self, together: torch.Tensor, apart: torch.Tensor, heard: Listener, alone: Listener
    ) -> None:
        assert torch.allclose(together, apart, rtol=1e-6, atol=1e-6), (
            f"{self.name}: fit_many must equal a loop over fit up to rounding, but in float64 "
            f"{gap(together, apart)}"
        )
        steps, expected = ([step for step, _ in points] for points in (heard.points, alone.points))
        assert steps == expected, f"{self.name}: fit_many reports steps {steps}, fit {expected}"


@lru_cache(maxsize=len(KINDS))
def _learned(method: Method, kind: str, epochs: int) -> Predictive:
    """The longest fit of the suite, which two laws look at."""
    return fit(method, make_problem(kind, epochs=epochs))
