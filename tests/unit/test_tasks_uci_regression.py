"""UCI regression on tables whose law is known, with predictives that know it."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from bhnbench_doubles.fits import Fit, run_task

from bhnbench.calibration import crps_mixture
from bhnbench.contract import Problem
from bhnbench.errors import DataError
from bhnbench.seeds import make_rng
from bhnbench_tasks.datasets.tables import RegressionTable, load_table
from bhnbench_tasks.streams import spawn
from bhnbench_tasks.uci_regression import UCIRegression, _Fold, draw_splits

N, D, NOISE_SD = 600, 4, 0.5
SHIFT, SCALE = 100.0, 10.0  # of the features: what a network sees must be standardised


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> str:
    """A file of a linear law with Gaussian noise."""
    rng = np.random.default_rng(1)
    features = rng.normal(size=(N, D))
    targets = features @ np.array([1.0, -2.0, 0.5, 0.0]) + 7 + NOISE_SD * rng.normal(size=N)
    return save(tmp_path_factory, features, targets)


def save(tmp_path_factory, features, targets) -> str:
    path = tmp_path_factory.mktemp("tables") / "linear.npz"
    np.savez(path, inputs=SHIFT + SCALE * features, targets=targets)
    return str(path)


@dataclass
class BayesianLine:
    """The exact posterior of a linear regression with known noise and a wide Gaussian prior."""

    problem: Problem
    noise_sd: float  # in the unit of the problem's targets

    def __post_init__(self) -> None:
        x, y = self._features(self.problem.train.inputs), self.problem.train.targets.double()
        precision = x.mT @ x / self.noise_sd**2 + 1e-4 * torch.eye(x.shape[1])
        self.covariance = torch.linalg.inv(precision)
        self.mean = self.covariance @ (x.mT @ y / self.noise_sd**2)

    @staticmethod
    def _features(inputs):
        return torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1).double()

    def sample(self, inputs, n_samples, *, rng):
        root = torch.linalg.cholesky(self.covariance)
        noise = torch.randn(n_samples, len(root), 1, generator=rng, dtype=torch.float64)
        means = self._features(inputs) @ (self.mean + root @ noise)
        raw = torch.full_like(means, math.log(math.expm1(self.noise_sd)))
        return torch.cat([means, raw], dim=-1).float()


def line(problem: Problem, path: str) -> BayesianLine:
    """Knows the noise in the targets' unit, and finds the scale that the task divides by."""
    everything = load_table(path)
    sd_of_law = everything.targets.std(correction=0).item()
    return BayesianLine(problem, NOISE_SD / sd_of_law)


def run(path, fit=None, **options):
    settings = {key: options.pop(key) for key in list(options) if key in fields()}
    fit = fit or Fit(lambda problem: line(problem, path))
    outcome = run_task(UCIRegression(dataset=path, **settings), fit, **options)
    return outcome, fit


def fields():
    return {field.name for field in dataclasses.fields(UCIRegression)}


@pytest.mark.parametrize("holdout", ["validation", "test"])
def test_the_exact_bayesian_linear_model_is_calibrated(table, holdout):
    outcome, _ = run(table, holdout=holdout)
    scores = outcome.scores
    # Its predictive has variance noise^2 (1 + (D + 1) / n_train), up to the splits' own scales.
    sd = NOISE_SD * math.sqrt(1 + (D + 1) / 432)
    n = N  # splits share rows: no more than all of them count
    assert scores["rmse"] == pytest.approx(sd, rel=5 / math.sqrt(2 * n))
    entropy = math.log(sd) + 0.5 * math.log(2 * math.pi * math.e)
    assert scores["log_likelihood"] == pytest.approx(-entropy, abs=5 * math.sqrt(0.5 / n))
    assert scores["crps"] == pytest.approx(sd / math.sqrt(math.pi), rel=0.1)
    calibration = outcome.tables["calibration"]
    for level in (50, 90):  # pooled over splits: half of the rest lies on either side
        low, high = ((100 - level) // 2, (100 + level) // 2)
        covered = calibration["observed"][high - 1] - calibration["observed"][low - 1]
        assert covered == pytest.approx(level, abs=100 * 5 * math.sqrt(0.25 / n))


def test_scores_are_in_the_unit_of_the_targets(table, tmp_path_factory):
    """In a thousandth of the unit the density is a thousandth of what it was."""
    known = load_table(table)
    features = (known.inputs.numpy() - SHIFT) / SCALE
    path = save(tmp_path_factory, features, 1000 * known.targets.numpy())
    fits = [Fit(lambda problem: line(problem, table)) for _ in range(2)]
    one, thousand = (run(p, fit)[0].scores for p, fit in zip((table, path), fits, strict=True))
    for ours, theirs in zip(*(fit.problems for fit in fits), strict=True):
        torch.testing.assert_close(ours.train.targets, theirs.train.targets)
    assert thousand["log_likelihood"] == pytest.approx(one["log_likelihood"] - math.log(1000))
    for name in ("rmse", "crps"):
        assert thousand[name] == pytest.approx(1000 * one[name], rel=1e-4)
    assert thousand["coverage_error_90"] == pytest.approx(one["coverage_error_90"])


def test_problems_are_standardised_by_the_rows_that_they_train_on(table):
    _, fit = run(table)
    assert len(fit.problems) == 20
    for problem in fit.problems:
        assert (len(problem.train), len(problem.validation)) == (432, 108)  # of 540
        for values in (problem.train.inputs, problem.train.targets):
            assert values.dtype == torch.float32
            sd, mean = torch.std_mean(values, dim=0, correction=0)
            torch.testing.assert_close(sd, torch.ones_like(sd), atol=1e-4, rtol=0)
            torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-4, rtol=0)
        assert problem.validation.targets.mean().abs() > 1e-4  # nothing of it was used


def test_rows_of_a_split_are_dealt_out_once(table):
    known = load_table(table)
    for k in range(known.n_splits):
        fold = _Fold.cut(known, k, 0.2)
        parts = [fold.train, fold.validation, known.test(k)]
        rows = [row.tobytes() for part in parts for row in part.inputs.numpy()]
        assert len(set(rows)) == len(rows) == N


def test_test_rows_are_not_read_in_a_search(table):
    known = load_table(table)

    def rows(part, k):
        assert part == "train", "test rows were asked for"
        return known.rows(part, k)

    guarded = RegressionTable("guarded", known.inputs, known.targets, 20, rows)
    fold = _Fold.cut(guarded, 3, 0.2)
    predictive = BayesianLine(
        Problem(*map(fold.scaled, (fold.train, fold.validation)), *4 * [0]), 1
    )
    assert fold.score(predictive, "validation", 5, torch.Generator())["n"] == 108
    with pytest.raises(AssertionError, match="asked for"):
        fold.score(predictive, "test", 5, torch.Generator())


@pytest.mark.parametrize("together", [1, 6, 20])
def test_what_is_trained_together_changes_nothing(table, together):
    reports = []
    outcome, _ = run(table, n_splits=7, splits_together=together, reports=reports)
    alone, _ = run(table, n_splits=7)
    assert outcome.scores == alone.scores
    assert [step for step, _ in reports] == [*range(together, 7, together), 7]
    assert reports[-1][1] == outcome.scores


def test_tables_hold_every_split_and_the_error_of_their_mean(table):
    outcome, _ = run(table, n_splits=4, holdout="test")
    splits, error = outcome.tables["splits"], outcome.tables["standard_error"]
    np.testing.assert_array_equal(splits["split"], range(4))
    np.testing.assert_array_equal(splits["n"], 60)
    for name, score in outcome.scores.items():
        assert score == pytest.approx(splits[name].mean())
        assert error[name].item() == pytest.approx(splits[name].std(ddof=1) / 2)
    single, _ = run(table, n_splits=1)
    assert single.tables["standard_error"]["rmse"] == [0]


def test_the_score_of_a_split_is_that_of_its_test_rows(table):
    outcome, fit = run(table, n_splits=1, n_samples=50, holdout="test")
    scored, fold = load_table(table).test(0), _Fold.cut(load_table(table), 0, 0.2)
    (rng,) = spawn(make_rng(seed=1), 1)
    predictive = line(fit.problems[0], table)
    outputs = predictive.sample(fold.scaled(scored).inputs, 50, rng=rng).double()
    sd = fold.train.targets.std(correction=0)
    means = outputs[..., :1] * sd + fold.train.targets.mean()
    sds = predictive.noise_sd * sd.expand_as(means)
    assert outcome.scores["crps"] == pytest.approx(
        crps_mixture(means, sds, scored.targets), rel=1e-4
    )
    expected = torch.distributions.Normal(means, sds).log_prob(scored.targets)
    expected = (expected.logsumexp(0) - math.log(50)).mean().item()
    assert outcome.scores["log_likelihood"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "n_parameters"),
    [({}, 50 * 5 + 51 * 2), ({"noise": "homoscedastic", "n_hidden": 3}, 3 * 5 + 4 + 1)],
)
def test_the_network_fits_the_table(table, settings, n_parameters):
    _, fit = run(table, n_splits=1, **settings)
    (problem,) = fit.problems
    network = problem.network()
    assert sum(p.numel() for p in network.parameters()) == n_parameters
    assert network(problem.train.inputs).shape == (432, 2)


def test_protein_has_the_hundred_units_of_the_papers(table):
    fold = _Fold.cut(load_table(table), 0, 0.2)
    network = UCIRegression(dataset="protein")._problem(fold).network()
    assert sum(p.numel() for p in network.parameters()) == 100 * 5 + 101 * 2


def test_the_figure_has_a_point_a_split(table):
    outcome, _ = run(table, n_splits=5)
    figure = draw_splits({"a": [outcome, outcome], "b": [outcome], "nothing": []})
    panel, _ = figure.axes
    points = [line.get_ydata() for line in panel.lines if line.get_marker() == "o"]
    assert len(points) == 2
    np.testing.assert_allclose(points[0], outcome.tables["splits"]["log_likelihood"])
    assert [label.get_text() for label in panel.get_xticklabels()] == ["a", "b"]


def test_a_file_of_one_s_own_is_checked_before_anything_runs(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        f"{part}_{kind}": rng.normal(size=(20, width))
        for part in ("train", "validation", "test")
        for kind, width in (("inputs", 3), ("targets", 1))
    }
    np.savez(tmp_path / "given.npz", **arrays)
    assert UCIRegression(dataset=str(tmp_path / "given.npz"), n_splits=1).n_splits == 1
    with pytest.raises(
        ValueError, match=r"n_splits <= 1 must hold for .*given.npz, but got n_spl"
    ):
        UCIRegression(dataset=str(tmp_path / "given.npz"), n_splits=7)
    arrays["train_inputs"][3, 1] = np.nan
    np.savez(tmp_path / "broken.npz", **arrays)
    with pytest.raises(DataError, match="must be finite, but 1 of its values"):
        UCIRegression(dataset=str(tmp_path / "broken.npz"))
