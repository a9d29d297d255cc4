"""Identity with predictives whose weights are known, and its exact posterior in other ways."""

from __future__ import annotations

import math
import pickle
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from bhnbench_doubles.fits import Fit, run_task
from scipy.stats import norm

from bhnbench.contract import Split
from bhnbench.errors import DivergedError
from bhnbench.plugins import load_method
from bhnbench.seeds import make_rng
from bhnbench_tasks.figures.density import draw_posterior
from bhnbench_tasks.identity import Identity, Product, draw, sample_weights, smaller_mode_mass
from bhnbench_tasks.product_posterior import ProductPosterior, _log_masses_between

TASK = Identity()
EXACT = ProductPosterior(slope=1.0, precision=60.0, prior_sd=1.0)


@dataclass
class Weights:
    """Draws of a and b from a function, put through the task's own network."""

    draw: object
    noise_sd: float = 0.5

    def sample(self, inputs, n_samples, *, rng):
        network = Product(self.noise_sd)
        outputs = []
        for a, b in self.draw(n_samples, rng).float():
            with torch.no_grad():
                network.a.weight.fill_(a)
                network.b.weight.fill_(b)
                outputs.append(network(inputs))
        return torch.stack(outputs)


def exact_samples(exact, n, rng):
    """Points of a fine grid with the posterior's probabilities, moved within their squares."""
    points = exact.grid(800).view(-1, 2)
    rows = torch.multinomial(exact.log_density(points).softmax(0), n, True, generator=rng)
    side = (points[1] - points[0]).abs().max()
    return points[rows] + side * (torch.rand(n, 2, dtype=torch.float64, generator=rng) - 0.5)


def run(draw_weights, task=None, **options):
    """Of few samples: the predictive above loops over them."""
    return run_task(task or Identity(n_samples=400), Weights(draw_weights), **options)


def test_the_task_reads_the_weights_of_its_samples():
    def alternate(n, rng):
        return torch.tensor([[2.0, 0.5], [-1.0, -1.0]]).repeat(n // 2, 1)

    outcome = run(alternate)
    samples = outcome.tables["samples"]
    np.testing.assert_array_equal(samples["a"], 200 * [2.0, -1.0])
    np.testing.assert_array_equal(samples["b"], 200 * [0.5, -1.0])
    assert outcome.scores["distance"] == 0
    assert outcome.scores["smaller_mode_mass"] == 50
    # a b = 1 is the truth: nothing is left but the noise that the likelihood expects
    entropy_like = -math.log(0.5) - 0.5 * math.log(2 * math.pi)
    assert outcome.scores["log_likelihood"] == pytest.approx(entropy_like, abs=1e-4)


@pytest.mark.parametrize("holdout", ["validation", "test"])
def test_the_scores_of_the_exact_posterior_are_known(holdout):
    fit = Fit(lambda problem: Weights(lambda n, rng: exact_samples(found(problem), n, rng)))

    def found(problem):
        return ProductPosterior.of(problem.train, 0.5, 1.0)

    outcome = run_task(Identity(n_samples=1000), fit, holdout=holdout)
    scores = outcome.scores
    share = outcome.scores["smaller_mode_mass"] / 100
    assert share == pytest.approx(0.495, abs=5 * math.sqrt(0.25 / 1000))
    assert scores["kl"] == pytest.approx(160 / 2000, abs=0.04)  # the bias of some 160 cells
    exact = ProductPosterior.from_table(outcome.tables["posterior"])
    precision = exact.precision
    assert precision == pytest.approx(fit.problems[0].train.inputs.square().sum() / 0.25)
    assert 0.5 < scores["distance"] * math.sqrt(precision * math.pi / 2) < 1.2


def test_one_mode_of_two_costs_log_2_and_has_no_smaller_mode():
    samples = exact_samples(EXACT, 20_000, make_rng(seed=1))
    one = samples[(samples > 0).all(-1)]
    assert smaller_mode_mass(one, EXACT) == 0
    more = EXACT.kl_of(one) - EXACT.kl_of(samples)
    assert more == pytest.approx(math.log(2), abs=0.02)


def test_neither_the_prior_nor_a_wide_posterior_has_the_modes():
    prior = torch.randn(20_000, 2, generator=make_rng(seed=1), dtype=torch.float64)
    assert smaller_mode_mass(prior, EXACT) < 10
    assert EXACT.kl_of(prior) > 10
    assert smaller_mode_mass(torch.zeros(10, 2), EXACT) == 0


@pytest.mark.parametrize("place", [0.0, 1.0, 1e6, -1e30])
def test_the_divergence_of_a_point_is_finite(place):
    kl = EXACT.kl_of(torch.full((10, 2), place, dtype=torch.float64))
    assert math.isfinite(kl)
    largest = 0.99 * EXACT.limit
    cell = EXACT.kl_of(
        torch.full((10, 2), min(max(place, -largest), largest), dtype=torch.float64)
    )
    assert kl == cell  # far away is the edge


def test_the_masses_are_those_of_numerical_integration():
    from scipy.integrate import dblquad

    def density(b, a):
        return math.exp(-30 * (a * b - 1) ** 2 - (a * a + b * b) / 2)

    def integral(low_a, high_a, low_b, high_b):
        return dblquad(density, low_a, high_a, low_b, high_b, epsabs=1e-7)[0]

    def mass_of(i, j):
        low_a, high_a, low_b, high_b = (EXACT.limit * (k / 20 - 1) for k in (i, i + 1, j, j + 1))
        return integral(low_a, high_a, low_b, high_b)

    masses = EXACT.log_masses().exp().view(40, 40)
    ratio = mass_of(24, 23) / mass_of(26, 22)
    assert (masses[24, 23] / masses[26, 22]).item() == pytest.approx(ratio, rel=1e-4)
    assert masses.sum().item() == pytest.approx(1)
    torch.testing.assert_close(masses, masses.flip(0, 1))  # (a, b) and (-a, -b)
    torch.testing.assert_close(masses, masses.mT)


def test_masses_far_out_are_finite_logarithms():
    """Down to e^-16000, where so steep a density makes the sum over a coarse: within a nat."""
    from scipy.integrate import dblquad

    def log_density(a, b):
        return -30 * (a * b - 1) ** 2 - (a * a + b * b) / 2

    masses, logs = EXACT.log_masses().view(40, 40), []
    for i, j in ((25, 22), (38, 38), (20, 3), (39, 0)):
        low_a, high_a, low_b, high_b = (EXACT.limit * (k / 20 - 1) for k in (i, i + 1, j, j + 1))
        highest = max(log_density(a, b) for a in (low_a, high_a) for b in (low_b, high_b))
        integral, _ = dblquad(
            lambda b, a, unit=highest: math.exp(log_density(a, b) - unit),
            *(low_a, high_a, low_b, high_b),
        )
        logs.append(highest + math.log(integral) - masses[i, j].item())
    assert masses[39, 0] < -16_000
    assert logs == pytest.approx([logs[0]] * 4, abs=1)  # one constant


def test_masses_between_edges_are_those_of_scipy():
    edges = torch.tensor([-60, -50, -8, -1, -1e-3, 0, 0.4, 3, 30, 40], dtype=torch.float64)
    found = _log_masses_between(edges).numpy()
    expected = np.log(np.diff(norm.cdf(edges[2:7])))
    np.testing.assert_allclose(found[2:6], expected, rtol=1e-13)
    # Beyond 30 standard deviations all mass is next to the edge.
    np.testing.assert_allclose(found[[0, -1]], norm.logcdf([-50.0, -30.0]), rtol=1e-13)
    assert found[-2] == pytest.approx(norm.logsf(3))


def test_the_region_holds_its_mass():
    samples = exact_samples(EXACT, 20_000, make_rng(seed=2))
    for mass in (0.5, 0.9, 0.99):
        inside = EXACT.log_density(samples) >= EXACT.log_density_at_mass(mass)
        error = math.sqrt(mass * (1 - mass) / 20_000)
        assert inside.double().mean().item() == pytest.approx(mass, abs=5 * error)


@pytest.mark.parametrize("prior_sd", [0.3, 1.0])
@pytest.mark.parametrize("mass", [0.5, 0.9, 0.99])
def test_the_region_is_that_of_a_fine_grid(prior_sd, mass):
    exact = ProductPosterior(1.0, 60.0, prior_sd)
    log_density = exact.log_density(exact.grid(2000)).flatten()
    inside = log_density >= exact.log_density_at_mass(mass)
    assert log_density.softmax(0)[inside].sum().item() == pytest.approx(mass, abs=2e-4)


@pytest.mark.parametrize("mass", [0.0, 0.1, 0.99, 0.9999])
def test_the_region_of_the_prior_has_a_closed_form(mass):
    """Without examples half the squared distance to 0 is exponential."""
    prior = ProductPosterior(1.0, 1e-9, 2.0)
    assert prior.log_density_at_mass(mass) == pytest.approx(math.log1p(-mass), abs=1e-2)


def samples_of_a_ridge(exact, n, rng):
    """By way of ``ab``, which lies within 6 standard deviations of the slope, and ``log(a/b)``.

    Both have a smooth density, ``exp(-precision / 2 (ab - slope)^2 - |ab| cosh / prior_sd^2)``,
    however narrow the ridge of the posterior is.
    """
    places = (torch.arange(1000, dtype=torch.float64) + 0.5) / 500 - 1
    product = exact.slope + 6 * places / math.sqrt(exact.precision)
    reach = math.acosh(1 + 30 * exact.prior_sd**2)
    log_ratio = reach * places
    misfit = 0.5 * exact.precision * (product - exact.slope).square()
    energy = misfit[:, None] + product[:, None] * log_ratio.cosh() / exact.prior_sd**2
    rows = torch.multinomial((-energy).flatten().softmax(0), n, True, generator=rng)
    jitter = 0.002 * (torch.rand(2, n, dtype=torch.float64, generator=rng) - 0.5)
    product = product[rows // 1000] + 6 * jitter[0] / math.sqrt(exact.precision)
    half = (log_ratio[rows % 1000] + reach * jitter[1]) / 2
    signs = 2.0 * torch.randint(2, (n, 1), generator=rng) - 1
    return signs * product.sqrt()[:, None] * torch.stack([half.exp(), (-half).exp()], -1)


@pytest.mark.parametrize("precision", [60.0, 15_000.0, 750_000.0])
@pytest.mark.parametrize("prior_sd", [0.3, 1.0, 5.0])
def test_a_narrow_ridge_has_its_masses_too(precision, prior_sd):
    exact, n = ProductPosterior(1.0, precision, prior_sd), 20_000
    samples = samples_of_a_ridge(exact, n, make_rng(seed=4))
    n_cells = len((20 * samples / exact.limit).floor().unique(dim=0))
    assert exact.kl_of(samples) == pytest.approx((n_cells - 1) / (2 * n), abs=2e-3)
    inside = (exact.log_density(samples) >= exact.log_density_at_mass(0.99)).double().mean()
    assert inside.item() == pytest.approx(0.99, abs=5 * math.sqrt(0.0099 / n))
    masses = exact.log_masses().exp().view(40, 40)
    torch.testing.assert_close(masses, masses.mT, atol=5e-4, rtol=0)  # the sum over a is coarse


def test_the_posterior_is_that_of_the_likelihood_and_the_prior():
    train = Split(torch.tensor([[1.0, 0], [-2, 0], [0.5, 0]]), torch.tensor([[1.5], [-1], [0.0]]))
    exact = ProductPosterior.of(train, noise_sd=0.7, prior_sd=2.0)
    weights = torch.randn(5, 2, generator=make_rng(seed=3), dtype=torch.float64)
    means = weights.prod(-1, keepdim=True) * train.inputs[:, 0]
    misfit = (train.targets[:, 0] - means).square().sum(-1) / 0.49
    expected = -0.5 * (misfit + weights.square().sum(-1) / 4)
    differences = exact.log_density(weights) - expected
    torch.testing.assert_close(differences, differences[:1].expand(5))  # a constant


def test_examples_do_not_ask_for_the_weights():
    split = draw(1000, make_rng(seed=1))
    assert split.inputs[:, 0].abs().max() <= 1.5
    assert not split.inputs[:, 1].any()
    torch.testing.assert_close(split.inputs[:, :1], split.targets)


def test_the_network_fits_its_likelihood_and_can_be_pickled():
    fit = Fit(lambda problem: Weights(lambda n, rng: torch.ones(n, 2)))
    run_task(Identity(n_samples=10, noise_sd=0.3), fit)
    (problem,) = fit.problems
    network = pickle.loads(pickle.dumps(problem.network))()
    outputs = network(problem.train.inputs)
    means, sds = problem.likelihood.split(outputs)
    a, b = network.a.weight.item(), network.b.weight.item()
    torch.testing.assert_close(means, a * b * problem.train.inputs[:, :1])
    torch.testing.assert_close(sds, torch.full_like(sds, 0.3))
    problem.likelihood.log_prob(outputs, problem.train.targets).sum().backward()
    slopes = network.a.weight.grad.item() * a, network.b.weight.grad.item() * b
    assert slopes[0] == pytest.approx(slopes[1]) != 0


@pytest.mark.parametrize(
    "settings",
    [
        ("maximum_likelihood", {}),
        ("mc_dropout", {"rate": 0.3}),
        ("deep_ensemble", {"n_members": 3}),
        ("sgld", {}),
        ("bayes_by_backprop", {}),
        ("bayesian_hypernet", {"target": "weights", "width": 8}),
        ("bayesian_hypernet", {"target": "gains", "width": 8}),
    ],
    ids=str,
)
def test_the_weights_of_a_sample_explain_its_outputs(settings):
    """Whatever a method does to the network: the a and b it is asked for give its means."""
    name, configuration = settings
    method = load_method(name)(**configuration)
    predictives = []

    def train(problem):
        assert method.supports(problem) is None
        predictives.append(
            method.fit(problem, rng=make_rng(seed=1), report=lambda step, metrics: None)
        )
        return predictives[0]

    fit = Fit(train)
    run_task(Identity(epochs=3, n_samples=5), fit)
    (problem,), (predictive,) = fit.problems, predictives
    weights = sample_weights(predictive, 5, make_rng(seed=2))
    outputs = predictive.sample(problem.train.inputs, 5, rng=make_rng(seed=2)).double()
    expected = weights.prod(-1)[:, None] * problem.train.inputs[:, 0]
    torch.testing.assert_close(outputs[..., 0], expected, atol=1e-5, rtol=1e-4)


def test_the_figure_has_a_panel_a_method():
    runs = [run(lambda n, rng: exact_samples(EXACT, n, rng)), run(lambda n, rng: torch.ones(n, 2))]
    figure = draw_posterior({"exact": runs[:1], "point": runs[1:], "nothing": []})
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in panels] == ["exact", "point"]
    assert panels[1].texts[0].get_text() == "smaller mode\n0 %"


def test_samples_that_are_no_numbers_have_no_divergence():
    with pytest.raises(DivergedError, match="must be numbers, but some are nan"):
        EXACT.kl_of(torch.tensor([[1.0, 1.0], [math.nan, 1.0]], dtype=torch.float64))
