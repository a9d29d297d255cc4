"""A collapsed or broken posterior is told, a narrow one and a point estimate are not."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import nn

from bhnbench.contract import Problem, Report, Split
from bhnbench.errors import PosteriorWarning
from bhnbench.likelihoods import Categorical
from bhnbench.testing.problems import make_problem
from bhnbench_methods.bayesian_hypernet import BayesianHypernet
from bhnbench_methods.deep_ensemble import DeepEnsemble
from bhnbench_methods.diagnostics import MIN_DISAGREEMENT, check_posterior, disagreement
from bhnbench_methods.fitting import TrainedMethod
from bhnbench_methods.maximum_likelihood import MaximumLikelihood
from bhnbench_methods.mc_dropout import MCDropout
from bhnbench_methods.models import Forward, Model, PointModel


def silent(_step: int, _metrics: Any) -> None:
    """For fits that nobody hears."""


def fit(method: TrainedMethod, problem: Problem, report: Report = silent) -> Any:
    return method.fit(problem, rng=torch.Generator().manual_seed(3), report=report)


@dataclass(frozen=True)
class Wide:
    """Samples of a network's outputs with a common deviation each."""

    scale: float
    sd: float
    offset: float = 0.0
    dtype: torch.dtype = torch.float32

    def sample(
        self, inputs: torch.Tensor, n_samples: int, *, rng: torch.Generator
    ) -> torch.Tensor:
        noise = torch.randn(n_samples, 1, 1, generator=rng, dtype=torch.float64)
        x = inputs.double().mean(1, keepdim=True)
        outputs = self.offset + self.scale * (x * (1 + self.sd * noise))
        return outputs.to(self.dtype)


@dataclass(frozen=True, kw_only=True)
class Frozen(TrainedMethod):
    """A method that forgot to be random, or whose samples explode."""

    value: str = "0"  # text, because a setting must be finite

    def make_model(self, problem: Problem) -> Model:
        return _FrozenModel(problem, float(self.value))


class _FrozenModel(Model):
    def __init__(self, problem: Problem, value: float) -> None:
        super().__init__()
        self.point = PointModel(problem, 0.0)
        self.value = value

    def draw_noise(self, inputs: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        return inputs.new_empty(0)

    def forward(self, inputs: torch.Tensor, noise: torch.Tensor) -> Forward:
        outputs: Forward = self.point(inputs, noise)
        return outputs

    def sample(
        self, inputs: torch.Tensor, n_samples: int, *, rng: torch.Generator
    ) -> torch.Tensor:
        return self.point.sample(inputs, n_samples, rng=rng) + self.value


@pytest.fixture
def problem() -> Problem:
    return make_problem("classification")


@pytest.mark.parametrize(
    "outputs",
    [
        torch.randn(2000, 3, 1, generator=torch.Generator().manual_seed(0)),
        torch.randn(2000, 3, 1, generator=torch.Generator().manual_seed(0)).double() * 1e-9,
    ],
)
def test_outputs_that_do_not_depend_on_the_input_differ_wholly(outputs: torch.Tensor) -> None:
    assert disagreement(outputs) == pytest.approx(1, rel=1e-3)


def test_disagreement_is_the_ratio_of_the_two_standard_deviations() -> None:
    over_inputs, between = 5.0, 0.02
    rng = torch.Generator().manual_seed(1)
    means = over_inputs * torch.randn(4000, 1, generator=rng, dtype=torch.float64)
    noise = between * torch.randn(8, 4000, 1, generator=rng, dtype=torch.float64)
    found = disagreement(means + noise)
    assert found == pytest.approx(between / over_inputs, rel=0.05)
    shifted = disagreement(1e4 * (means + noise) + 1e9)
    assert shifted == pytest.approx(found, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("sd", "offset", "collapsed"),
    [
        (0.0, 0.0, True),
        (1e-5, 0.0, True),
        (1e-3, 0.0, False),
        (1e-3, 2000.0, False),  # years, say
        (0.0, 1e8, True),
    ],
)
def test_what_counts_as_collapsed(
    problem: Problem, dtype: torch.dtype, sd: float, offset: float, collapsed: bool
) -> None:
    predictive = Wide(scale=10.0, sd=sd, offset=offset, dtype=dtype)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        check_posterior(predictive, problem, is_random=True)
        check_posterior(predictive, problem, is_random=False)
    assert [warning.category for warning in heard] == [PosteriorWarning] * collapsed


def test_a_collapse_is_told_with_its_figure_and_a_remedy(problem: Problem) -> None:
    rule = r"must differ, .* is 0\.0e\+00 of the spread .*below 0\.0001.*; try other values"
    with pytest.warns(PosteriorWarning, match=rule):
        fit(Frozen(), problem)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_samples_that_are_not_finite_are_told(problem: Problem, value: float) -> None:
    rule = r"must be finite, but 576 of 576 outputs are not; try a lower learning rate"
    no_validation = replace(problem, validation=Split(torch.empty(0, 2), torch.empty(0).long()))
    with pytest.warns(PosteriorWarning, match=rule.replace("576", "1152")):
        fit(Frozen(value=str(value)), no_validation)  # on the training inputs, then
    with pytest.warns(PosteriorWarning, match=rule):
        check_posterior(_FrozenModel(problem, value), problem, is_random=False)


@pytest.mark.parametrize(
    "method",
    [
        MaximumLikelihood(),
        DeepEnsemble(n_members=1),
        DeepEnsemble(n_members=2),
        MCDropout(rate=0.01),
        BayesianHypernet(flow="affine", initial_sd=0.002),
    ],
    ids=lambda method: type(method).__name__,
)
@pytest.mark.parametrize("kind", ["classification", "regression", "images"])
def test_points_and_narrow_posteriors_are_no_collapse(method: TrainedMethod, kind: str) -> None:
    fit(method, make_problem(kind))  # a warning is an error here


def test_the_narrowest_posterior_of_the_papers_is_far_from_a_collapse() -> None:
    """Gains of standard deviation 0.002 on 800 units: ten times the threshold and more."""
    rng = torch.Generator().manual_seed(0)
    split = Split(torch.randn(64, 784, generator=rng), torch.arange(64) % 10)

    def network() -> nn.Module:
        return nn.Sequential(nn.Linear(784, 800), nn.ReLU(), nn.Linear(800, 10))

    wide = Problem(split, split, Categorical(10), network, epochs=1, batch_size=16)
    predictive = fit(BayesianHypernet(flow="affine", initial_sd=0.002), wide)
    outputs = predictive.sample(split.inputs, 8, rng=rng)
    assert disagreement(outputs) > 10 * MIN_DISAGREEMENT


def test_each_replica_is_looked_at_by_itself(problem: Problem) -> None:
    other = make_problem("classification", seed=1)
    with pytest.warns(PosteriorWarning) as heard:
        Frozen().fit_many(
            [problem, other],
            rngs=[torch.Generator().manual_seed(seed) for seed in (1, 2)],
            reports=[silent, silent],
            warm_starts=[None, None],
        )
    assert len(heard) == 2


def test_looking_changes_no_number(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the fit's stream, nor torch's, nor the caller's inputs, nor the samples."""

    def everything() -> list[torch.Tensor]:
        torch.manual_seed(5)
        rng = torch.Generator().manual_seed(3)
        predictive = MCDropout().fit(problem, rng=rng, report=silent)
        samples = predictive.sample(problem.validation.inputs, 3, rng=rng)
        return [samples, rng.get_state(), torch.get_rng_state(), problem.validation.inputs.clone()]

    looked = everything()
    monkeypatch.setattr("bhnbench_methods.fitting.check_posterior", lambda *_, **__: None)
    for one, other in zip(looked, everything(), strict=True):
        assert torch.equal(one, other)


def test_few_inputs_are_looked_at_and_not_the_first_ones_alone(problem: Problem) -> None:
    seen: list[torch.Tensor] = []

    class Spy:
        def sample(
            self, inputs: torch.Tensor, n_samples: int, *, rng: torch.Generator
        ) -> torch.Tensor:
            seen.append(inputs)
            return torch.randn(n_samples, len(inputs), 1, generator=rng)

    for n in (1, 64, 65, 1000):
        split = Split(torch.arange(float(n)).view(n, 1), torch.zeros(n).long())
        check_posterior(Spy(), replace(problem, validation=split), is_random=True)
        assert 1 <= len(seen[-1]) <= 64
        assert seen[-1].max() >= 0.9 * (n - 1)
