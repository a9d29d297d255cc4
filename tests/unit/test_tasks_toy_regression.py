"""Toy regression with fits that know the curve."""

from __future__ import annotations

import math
import pickle
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from bhnbench_doubles.fits import Fit, run_task

from bhnbench.contract import Split
from bhnbench.seeds import make_rng
from bhnbench_tasks.curves import CURVES
from bhnbench_tasks.scaling import Scaling
from bhnbench_tasks.streams import spawn
from bhnbench_tasks.toy_regression import ToyRegression

TASK = ToyRegression()
UNSCALED = Scaling.none(Split(torch.zeros(1, 1), torch.zeros(1, 1)))


@dataclass
class Exact:
    """A curve without its noise, shifted by N(0, sd^2) in each sample, in units of a scaling."""

    curve: str
    noise_sd: float
    sd: float = 0.0
    scaling: Scaling = UNSCALED
    asked: list = field(default_factory=list)

    def sample(self, inputs, n_samples, *, rng):
        self.asked.append(inputs)
        s = self.scaling
        truth = CURVES[self.curve].truth(inputs * s.input_sd + s.input_mean)
        shifts = self.sd * torch.randn(n_samples, 1, 1, generator=rng)
        means = (truth + shifts - s.target_mean) / s.target_sd
        raw = torch.full_like(means, math.log(math.expm1(self.noise_sd / s.target_sd.item())))
        return torch.cat([means, raw], dim=-1)


def evaluate(task, answer=None, **options):
    """Outcome and problem."""
    fit = Fit(lambda problem: answer or Exact(task.curve, 0.1))
    outcome = run_task(task, fit, **options)
    (problem,) = fit.problems
    return outcome, problem


def test_the_noise_of_blundell_enters_as_published():
    split = CURVES["blundell"].draw(200_000, 0.02, make_rng(seed=1))
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


@pytest.mark.parametrize(
    ("name", "truth", "noise_sd"),
    [
        ("cubic", lambda x: x**3, lambda x: 9.0 + 0 * x),
        (
            "sinusoids",
            lambda x: 0.01 * x**1.5 * (2.5 * x).sin() + 0.1 * x - 1,
            lambda x: 36 / x**2,
        ),
        ("gap", lambda x: (2 * x).cos() + 0.3 * x, lambda x: 9.0 + 0 * x),
    ],
)
def test_the_other_curves_are_as_published(name, truth, noise_sd):
    n = 100_000
    split = CURVES[name].draw(n, 9.0, make_rng(seed=1))
    x = split.inputs.double()
    standardised = (split.targets - truth(x)) / noise_sd(x)
    assert standardised.mean().abs() < 5 / math.sqrt(n)
    assert standardised.std() == pytest.approx(1, abs=5 / math.sqrt(2 * n))


@pytest.mark.parametrize("name", CURVES)
def test_inputs_are_uniform_on_the_intervals(name):
    curve, n = CURVES[name], 100_000
    x = curve.draw(n, 1.0, make_rng(seed=1)).inputs.squeeze()
    assert curve.is_inside(x).all()
    total = sum(high - low for low, high in curve.intervals)
    for low, high in curve.intervals:
        middle = (low + high) / 2
        for start, end in ((low, middle), (middle, high)):
            share = ((start <= x) & (x <= end)).double().mean().item()
            assert share == pytest.approx((end - start) / total, abs=5 * math.sqrt(0.25 / n))


@pytest.mark.parametrize("holdout", ["validation", "test"])
def test_a_known_curve_has_known_scores(holdout):
    outcome, _ = evaluate(TASK, Exact("blundell", noise_sd=0.065), holdout=holdout)
    assert set(outcome.scores) == {m.name for m in ToyRegression.metrics}
    assert 0.05 < outcome.scores["rmse"] < 0.08
    # Gaussian with this scale: -log(sd) - log(2 pi) / 2 - rmse^2 / (2 sd^2)
    ratio = outcome.scores["rmse"] / 0.065
    expected = -math.log(0.065) - 0.5 * math.log(2 * math.pi) - 0.5 * ratio**2
    assert outcome.scores["log_likelihood"] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(("curve", "noise_sd"), [("cubic", 3.0), ("cubic", 9.0), ("gap", 0.1)])
def test_the_truth_is_calibrated_in_the_units_of_the_targets(curve, noise_sd):
    """Whoever knows the curve and its noise has the best scores that there are."""
    task = ToyRegression(curve=curve, noise_sd=noise_sd)
    exact = Exact(curve, noise_sd, scaling=scaling_of(task))
    outcome, problem = evaluate(task, exact, holdout="test")
    for values in (problem.train.inputs, problem.train.targets):
        sd, mean = torch.std_mean(values, correction=0)
        assert (sd.item(), mean.item()) == pytest.approx((1, 0), abs=1e-5)
    scores, n = outcome.scores, 1000
    assert scores["rmse"] == pytest.approx(noise_sd, rel=5 / math.sqrt(2 * n))
    entropy = math.log(noise_sd) + 0.5 * math.log(2 * math.pi * math.e)
    assert scores["log_likelihood"] == pytest.approx(-entropy, abs=5 * math.sqrt(0.5 / n))
    assert scores["coverage_error_50"] < 100 * 5 * math.sqrt(0.25 / n)
    assert scores["coverage_error_90"] < 100 * 5 * math.sqrt(0.09 / n)
    assert scores["calibration_error"] < 100 * 2 * math.sqrt(0.25 / n)
    assert scores["sd_inside"] == scores["sd_outside"] == 0


def scaling_of(task: ToyRegression) -> Scaling:
    """That of the training examples of seed 1."""
    train_rng, *_ = spawn(make_rng(seed=1), 5)
    curve = CURVES[task.curve]
    return Scaling.of(curve.draw(curve.n_train, task.noise_sd, train_rng))


def test_doubt_inside_and_outside_the_data():
    """The samples of ``Exact`` doubt equally everywhere; here they doubt more far from zero."""

    class Fan(Exact):
        def sample(self, inputs, n_samples, *, rng):
            outputs = super().sample(inputs, n_samples, rng=rng)
            slopes = torch.randn(n_samples, 1, 1, generator=rng)
            return torch.cat([outputs[..., :1] + slopes * inputs, outputs[..., 1:]], dim=-1)

    outcome, _ = evaluate(ToyRegression(n_samples=2000), Fan("blundell", 0.1))
    # |x| averaged over the grid on [0, 0.5] is 0.25; over [-0.5, 0) and (0.5, 1.5] it is 0.75.
    assert outcome.scores["sd_inside"] == pytest.approx(0.25, rel=0.1)
    assert outcome.scores["sd_outside"] == pytest.approx(0.753, rel=0.1)


def test_the_predictive_band_tells_apart_two_uncertainties():
    outcome, _ = evaluate(ToyRegression(n_samples=2000), Exact("blundell", 0.3, sd=0.4))
    band = outcome.tables["predictive_band"]
    assert band["x"][0] == -0.5
    assert band["x"][-1] == 1.5
    standard_error = 0.4 / math.sqrt(2 * 2000)
    np.testing.assert_allclose(band["mean_sd"], 0.4, atol=5 * standard_error)
    np.testing.assert_allclose(band["sd"], 0.5, atol=5 * standard_error)
    np.testing.assert_allclose(band["mean"], band["truth"], atol=5 * 0.4 / math.sqrt(2000))
    assert len({len(column) for column in band.values()}) == 1


def test_the_table_of_training_points_holds_the_first_fifty():
    outcome, problem = evaluate(TASK)
    points = outcome.tables["training_points"]
    np.testing.assert_array_equal(points["x"], problem.train.inputs[:50, 0].numpy())
    np.testing.assert_array_equal(points["y"], problem.train.targets[:50, 0].numpy())


def test_splits_are_separate_streams():
    _, problem = evaluate(TASK)
    assert not set(problem.train.inputs.flatten().tolist()) & set(
        problem.validation.inputs.flatten().tolist()
    )
    _, small = evaluate(ToyRegression(n_train=7))
    assert len(small.train) == 7
    assert torch.equal(small.validation.inputs, problem.validation.inputs[:7])
    _, large = evaluate(ToyRegression(n_train=1500))
    assert torch.equal(large.validation.inputs, problem.validation.inputs)
    assert len(large.validation) == 1000


@pytest.mark.parametrize("holdout", ["validation", "test"])
def test_few_examples_are_scored_on_as_many_as_others(holdout):
    seen = Exact("blundell", 0.3)
    evaluate(ToyRegression(n_train=7), seen, holdout=holdout)
    scored, _ = seen.asked
    assert len(scored) == 1000


def test_the_problem_depends_on_the_seed_alone():
    _, one = evaluate(TASK, holdout="validation")
    _, same = evaluate(TASK, Exact("blundell", 0.7, sd=1), holdout="test")
    _, other = evaluate(TASK, seed=2)
    assert torch.equal(one.train.targets, same.train.targets)
    assert torch.equal(one.validation.targets, same.validation.targets)
    assert not torch.equal(one.train.targets, other.train.targets)


@pytest.mark.parametrize("name", CURVES)
def test_what_is_null_is_the_curves_own(name):
    curve = CURVES[name]
    _, problem = evaluate(ToyRegression(curve=name))
    assert (len(problem.train), problem.epochs) == (curve.n_train, curve.epochs)
    _, given = evaluate(ToyRegression(curve=name, n_train=9, epochs=3, n_hidden=4))
    assert (len(given.train), given.epochs) == (9, 3)
    assert sum(p.numel() for p in given.network().parameters()) == 4 * 3 + 1 + 1


def test_reports_of_the_fit_are_passed_on():
    reports: list = []
    evaluate(TASK, reports=reports)
    assert reports == [(1, {"accuracy": 50.0})]


def test_the_network_fits_its_likelihood_and_can_be_pickled():
    _, problem = evaluate(TASK)
    network = pickle.loads(pickle.dumps(problem.network))()
    assert sum(p.numel() for p in network.parameters()) == 152  # as in the paper
    outputs = network(problem.train.inputs)
    assert outputs.shape == (1000, 2)
    assert outputs[:, 1].unique().numel() == 1
    problem.likelihood.log_prob(outputs, problem.train.targets).sum().backward()
    assert network.raw_scale.grad is not None


def test_a_heteroscedastic_network_has_a_scale_for_each_input():
    _, problem = evaluate(ToyRegression(noise="heteroscedastic"))
    assert problem.network()(problem.train.inputs)[:, 1].unique().numel() > 900


def test_a_constant_column_is_only_shifted():
    inputs = torch.tensor([[1.0, 0.1], [3.0, 0.1]])
    scaling = Scaling.of(Split(inputs, torch.tensor([[0.0], [8.0]])))
    scaled = scaling.apply(Split(inputs, torch.tensor([[0.0], [8.0]])))
    torch.testing.assert_close(scaled.inputs, torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))
    torch.testing.assert_close(scaled.targets, torch.tensor([[-1.0], [1.0]]))
