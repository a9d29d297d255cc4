"""Toy regression with fits that know the curve."""

from __future__ import annotations

import math
import pickle
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from bhnbench.seeds import make_rng
from bhnbench_tasks.toy_regression import ToyRegression, draw_curve

TASK = ToyRegression()


class NoCheckpoint:
    def load(self) -> None:
        return None

    def save(self, state: object) -> None: ...


@dataclass
class Curve:
    """The curve without its noise, shifted by N(0, sd^2) in each sample."""

    noise_sd: float
    sd: float = 0.0

    def sample(self, inputs, n_samples, *, rng):
        phase = 2 * math.pi * inputs
        mean = inputs + 0.3 * torch.sin(phase) + 0.3 * torch.sin(2 * phase)
        shifts = self.sd * torch.randn(n_samples, 1, 1, generator=rng)
        raw = torch.full_like(mean, math.log(math.expm1(self.noise_sd)))
        return torch.cat([mean + shifts, raw.expand(n_samples, -1, -1)], dim=-1)


class Fit:
    """Remembers its problem, and gives a predictive that it was told."""

    def __init__(self, predictive: Curve) -> None:
        self.predictive = predictive
        self.problem = None

    def __call__(self, problem, *, report=None, warm_start=None):
        self.problem = problem
        if report is not None:
            report(1, {"loss": 0.5})
        return self.predictive


def evaluate(task, predictive, *, holdout="validation", seed=1, reports=None):
    fit = Fit(predictive)
    outcome = task.evaluate(
        fit,
        holdout=holdout,
        rng=make_rng(seed=seed),
        report=lambda step, metrics: None if reports is None else reports.append((step, metrics)),
        checkpoint=NoCheckpoint(),
    )
    return outcome, fit.problem


def test_the_noise_enters_as_published():
    split = draw_curve(200_000, make_rng(seed=1))
    assert split.inputs.shape == split.targets.shape == (200_000, 1)
    assert split.inputs.min() >= 0
    assert split.inputs.max() <= 0.5
    phase = 2 * math.pi * split.inputs
    residual = split.targets - split.inputs - 0.3 * phase.sin() - 0.3 * (2 * phase).sin()
    slope = 1 + 0.6 * math.pi * phase.cos() + 1.2 * math.pi * (2 * phase).cos()
    # To first order the residual is slope * e with sd(e) = 0.02; second order is about 5 %.
    assert (residual / slope.abs().clamp(min=1)).std() < 0.03
    steep = slope.abs() > 3
    assert (residual[steep] / slope[steep]).std() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize("holdout", ["validation", "test"])
def test_a_known_curve_has_known_scores(holdout):
    outcome, _ = evaluate(TASK, Curve(noise_sd=0.065), holdout=holdout)
    assert set(outcome.scores) == {m.name for m in ToyRegression.metrics}
    assert 0.05 < outcome.scores["rmse"] < 0.08
    # Gaussian with this scale: -log(sd) - log(2 pi) / 2 - rmse^2 / (2 sd^2)
    ratio = outcome.scores["rmse"] / 0.065
    expected = -math.log(0.065) - 0.5 * math.log(2 * math.pi) - 0.5 * ratio**2
    assert outcome.scores["log_likelihood"] == pytest.approx(expected, abs=1e-3)


def test_the_predictive_band_tells_apart_two_uncertainties():
    outcome, _ = evaluate(ToyRegression(n_samples=20_000), Curve(noise_sd=0.3, sd=0.4))
    band = outcome.tables["predictive_band"]
    assert band["x"][0] == -0.5
    assert band["x"][-1] == 1.5
    standard_error = 0.4 / math.sqrt(2 * 20_000)
    np.testing.assert_allclose(band["mean_sd"], 0.4, atol=5 * standard_error)
    np.testing.assert_allclose(band["sd"], 0.5, atol=5 * standard_error)
    assert len({len(column) for column in band.values()}) == 1


def test_the_table_of_training_points_holds_the_first_fifty():
    outcome, problem = evaluate(TASK, Curve(noise_sd=0.1))
    points = outcome.tables["training_points"]
    np.testing.assert_array_equal(points["x"], problem.train.inputs[:50, 0].numpy())
    np.testing.assert_array_equal(points["y"], problem.train.targets[:50, 0].numpy())


def test_splits_are_separate_streams():
    _, problem = evaluate(TASK, Curve(noise_sd=0.1))
    assert not set(problem.train.inputs.flatten().tolist()) & set(
        problem.validation.inputs.flatten().tolist()
    )
    _, small = evaluate(ToyRegression(n_train=7), Curve(noise_sd=0.1))
    assert len(small.train) == 7
    assert torch.equal(small.validation.inputs, problem.validation.inputs)


def test_the_problem_depends_on_the_seed_alone():
    _, one = evaluate(TASK, Curve(noise_sd=0.1), holdout="validation")
    _, same = evaluate(TASK, Curve(noise_sd=0.7, sd=1), holdout="test")
    _, other = evaluate(TASK, Curve(noise_sd=0.1), seed=2)
    assert torch.equal(one.train.targets, same.train.targets)
    assert torch.equal(one.validation.targets, same.validation.targets)
    assert not torch.equal(one.train.targets, other.train.targets)


def test_reports_of_the_fit_are_passed_on():
    reports: list = []
    evaluate(TASK, Curve(noise_sd=0.1), reports=reports)
    assert reports == [(1, {"loss": 0.5})]


def test_the_network_fits_its_likelihood_and_can_be_pickled():
    _, problem = evaluate(TASK, Curve(noise_sd=0.1))
    network = pickle.loads(pickle.dumps(problem.network))()
    assert sum(p.numel() for p in network.parameters()) == 152  # as in the paper
    outputs = network(problem.train.inputs)
    assert outputs.shape == (1000, 2)
    assert outputs[:, 1].unique().numel() == 1
    problem.likelihood.log_prob(outputs, problem.train.targets).sum().backward()
    assert network.raw_scale.grad is not None
