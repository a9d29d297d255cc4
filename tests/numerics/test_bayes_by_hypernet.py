"""Implicit posteriors: estimators of the KL against closed forms, adversarial gradients."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.distributions import Normal, kl_divergence
from torch.func import grad_and_value, vmap

from bhnbench.testing.problems import make_problem
from bhnbench_methods.bayes_by_hypernet import BayesByHypernet, _GeneratedModel
from bhnbench_methods.generators import Generator
from bhnbench_methods.implicit_kl import Discriminator, nearest_neighbour_kl

by_comparison = pytest.mark.parametrize("whole_vectors", [True, False], ids=["vectors", "numbers"])


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=rng(seed))


def make_model(kind: str = "classification", **settings: object) -> _GeneratedModel:
    torch.manual_seed(0)
    problem = make_problem(kind, dtype=torch.float64)
    return _GeneratedModel(problem, BayesByHypernet(**settings))


@by_comparison
def test_nearest_neighbours_against_a_loop(whole_vectors: bool) -> None:
    posterior, prior = noise(4, 3), noise(5, 3, seed=2)
    columns = [(posterior, prior)]
    if not whole_vectors:
        columns = [(posterior[:, [k]], prior[:, [k]]) for k in range(3)]
    expected = 0.0
    for w, p in columns:
        log_ratios = []
        for i in range(4):
            to_prior = min(math.dist(w[i], p[j]) for j in range(5))
            to_others = min(math.dist(w[i], w[j]) for j in range(4) if j != i)
            log_ratios.append(math.log(to_prior / to_others))
        expected += w.shape[1] * sum(log_ratios) / 4 + math.log(5 / 3)
    estimate = nearest_neighbour_kl(posterior, prior, whole_vectors)
    assert estimate.item() == pytest.approx(expected, rel=1e-6)


@by_comparison
def test_kl_to_itself_is_zero_in_expectation(whole_vectors: bool) -> None:
    """Every other sample is as likely to be the nearest: exact for n and n - 1 samples."""
    n_trials, n = 3000, 4
    samples = noise(n_trials, 2 * n - 1, 3)
    estimates = torch.stack(
        [nearest_neighbour_kl(rows[:n], rows[n:], whole_vectors) for rows in samples]
    )
    assert abs(estimates.mean()) < 4 * estimates.std() / math.sqrt(n_trials)


@pytest.mark.parametrize(("n", "max_bias"), [(5, 0.15), (20, 0.1), (200, 0.02)])
def test_bias_of_nearest_neighbours(n: int, max_bias: float) -> None:
    """Number by number it is at most what the docstring says, for each Gaussian on a grid."""
    estimates, kls, error = estimates_on_a_grid(n, means=(0.0, 0.5, 1.0))
    assert ((estimates - kls).abs() < max_bias + error).all()


def test_nearest_neighbours_miss_much_of_a_large_kl() -> None:
    """As the docstring warns: the prior's samples are not where the posterior is."""
    estimates, kls, error = estimates_on_a_grid(5, means=(3.0,))
    assert (estimates < kls - 1.5 + error).all()


def estimates_on_a_grid(
    n: int, means: tuple[float, ...]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Estimate, KL and four standard errors for each of these means with three sds."""
    grid = torch.cartesian_prod(torch.tensor(means), torch.tensor([0.1, 0.3, 1.0])).double()
    mean, sd = grid.unbind(1)
    n_batches, n_trials = 20, 2_000 // n  # trials beside each other are numbers of one vector
    q = mean[:, None] + sd[:, None] * noise(n_batches, n, len(grid), n_trials)
    p = noise(n_batches, n, len(grid), n_trials, seed=2)
    batches = torch.stack(
        [
            torch.stack(
                [nearest_neighbour_kl(q[b, :, k], p[b, :, k], False) for k in range(len(grid))]
            )
            for b in range(n_batches)
        ]
    )
    estimates = batches / n_trials
    kls = kl_divergence(Normal(mean, sd), Normal(0.0, 1.0))
    return estimates.mean(0), kls, 4 * estimates.std(0) / math.sqrt(n_batches)


def test_kl_of_an_affine_generator() -> None:
    """It is Gaussian: the estimate is the sum of the KLs of its marginals, closed forms."""
    model = make_model(generator="affine", n_noise=3, n_kl_samples=200, prior_mean="zero")
    model.requires_grad_(False)
    means = model.generate(torch.zeros(1, 3)).squeeze(0)
    sds = torch.cat([head.weight[:, -3:].norm(dim=1) for head in model.generator.heads])
    expected = kl_divergence(Normal(means, sds), Normal(0.0, 1.0)).sum()
    inputs, stream = torch.zeros(2, 2, dtype=torch.float64), rng()
    draws = [model(inputs, model.draw_noise(inputs, stream))[1] for _ in range(40)]
    estimates = torch.stack(draws)
    error = 4 * estimates.std() / math.sqrt(len(draws))
    assert abs(estimates.mean() - expected) < 0.01 * model.target.n_dims + error


@by_comparison
def test_estimates_are_blind_to_dependence_only_number_by_number(whole_vectors: bool) -> None:
    """Two equal numbers: the KL is infinite, that of each one zero."""
    w, prior = noise(400, 1).expand(-1, 2), noise(400, 2, seed=2)
    estimate = nearest_neighbour_kl(w, prior, whole_vectors).item()
    assert estimate > 2 if whole_vectors else abs(estimate) < 0.5


@pytest.mark.parametrize("kl_estimator", ["nearest_neighbours", "discriminator"])
@pytest.mark.parametrize("prior_mean", ["zero", "initial"])
def test_the_published_mean_is_the_sum_over_its_number(kl_estimator: str, prior_mean: str) -> None:
    settings = {"kl_estimator": kl_estimator, "prior_mean": prior_mean}
    penalties = []
    for reduction in ("sum", "mean"):
        model = make_model(kl_reduction=reduction, **settings)
        inputs = torch.zeros(2, 2, dtype=torch.float64)
        penalties.append(model(inputs, model.draw_noise(inputs, rng()))[1].item())
    assert penalties[0] == pytest.approx(model.target.n_dims * penalties[1])


@by_comparison
def test_adversarial_gradients(whole_vectors: bool) -> None:
    """The penalty is the KL to the generator and the cross-entropy to the discriminator."""
    torch.manual_seed(0)
    discriminator = Discriminator(3, whole_vectors, speed=4.0, scale=0.5, loss_scale=7.0).double()
    posterior, prior = noise(6, 3).requires_grad_(), noise(6, 3, seed=2)
    parameters = list(discriminator.parameters())

    logits = discriminator.logits(posterior)
    kl = 0.5 * (logits.mean() if whole_vectors else logits.sum(1).mean())
    (of_kl,) = torch.autograd.grad(kl, posterior, retain_graph=True)
    targets = torch.cat((torch.ones_like(logits), torch.zeros_like(logits)))
    both = torch.cat((logits, discriminator.logits(prior)))
    cross_entropy = 7 * 2 * torch.nn.functional.binary_cross_entropy_with_logits(both, targets)
    of_loss = torch.autograd.grad(cross_entropy, parameters)

    penalty = discriminator(posterior, prior)
    gradients = torch.autograd.grad(penalty, [posterior, *parameters])
    torch.testing.assert_close(penalty, kl)
    torch.testing.assert_close(gradients, (of_kl, *of_loss))


def test_speed_leaves_the_start_and_multiplies_the_steps() -> None:
    moved = []
    for speed in (1.0, 8.0):
        torch.manual_seed(0)
        discriminator = Discriminator(2, whole_vectors=True, speed=speed).double()
        before = discriminator.logits(noise(5, 2)).detach()
        optimiser = torch.optim.Adam(discriminator.parameters(), lr=1e-7, eps=1e-30)
        discriminator(noise(9, 2), 1 + noise(9, 2, seed=2)).backward()
        optimiser.step()
        moved.append((before, discriminator.logits(noise(5, 2)).detach() - before))
    (slow_start, slow), (fast_start, fast) = moved
    torch.testing.assert_close(slow_start, fast_start)
    torch.testing.assert_close(fast, 8 * slow, rtol=1e-3, atol=1e-12)


@by_comparison
def test_trained_discriminator_finds_the_kl(whole_vectors: bool) -> None:
    """Of vectors the KL; number by number the KL of their mixture, times how many they are."""
    torch.manual_seed(0)
    mean, sd = torch.tensor([0.6, -0.6]), 0.7
    discriminator = Discriminator(2, whole_vectors, speed=1.0)
    optimiser = torch.optim.Adam(discriminator.parameters(), lr=5e-3)
    for step in range(800):
        for group in optimiser.param_groups:
            group["lr"] = 5e-3 * (1 - step / 800)
        optimiser.zero_grad()
        posterior = mean + sd * torch.randn(500, 2)
        discriminator(posterior, torch.randn(500, 2)).backward()
        optimiser.step()
    expected = kl_divergence(Normal(mean, sd), Normal(0.0, 1.0)).sum().item()
    if not whole_vectors:
        x = torch.linspace(-6, 6, 4001)
        log_q = Normal(mean, sd).log_prob(x.unsqueeze(-1)).logsumexp(-1) - math.log(2)
        log_ratio = log_q - Normal(0.0, 1.0).log_prob(x)
        pooled = 2 * torch.trapezoid(log_q.exp() * log_ratio, x).item()
        assert pooled < expected - 0.1
        expected = pooled
    found = discriminator(mean + sd * torch.randn(20_000, 2), torch.randn(2, 2)).item()
    assert found == pytest.approx(expected, abs=0.08)


@pytest.mark.parametrize("hidden", [(), (8, 16)])
def test_generator_starts_standardised(hidden: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    generator = Generator([3, 5], 4, hidden, initial_sd=0.2)
    values = generator(torch.randn(20_000, 1, 4)).detach()
    assert values.shape == (20_000, 8)
    assert (values.mean(0).abs() < 0.05).all()  # scaled on 256 draws
    assert ((values.std(0) - 0.2).abs() < 0.04).all()


@pytest.mark.parametrize("generator", ["affine", "mlp"])
def test_only_hidden_layers_bend_the_generator(generator: str) -> None:
    model = make_model(generator=generator, n_noise=4)
    a, b = noise(1, 4), noise(1, 4, seed=2)
    values = [model.generate(z).detach() for z in (a, b, a + b, 0 * a)]
    bend = (values[0] + values[1] - values[2] - values[3]).abs().max().item()
    assert bend < 1e-12 if generator == "affine" else bend > 1e-3


@pytest.mark.parametrize("shared", [True, False])
def test_groups_depend_on_one_another_through_shared_noise_alone(shared: bool) -> None:
    model = make_model(n_noise=4, shared_noise=shared)
    n_noise = math.prod(model.noise_shape)
    jacobian = torch.func.jacrev(lambda z: model.generate(z.unsqueeze(0))[0])(noise(n_noise))
    first = jacobian[: model.target.sizes[0]] != 0
    second = jacobian[model.target.sizes[0] :] != 0
    assert (
        (first.any(0) & second.any(0)).all()
        if shared
        else not (first.any(0) & second.any(0)).any()
    )


@pytest.mark.parametrize(
    ("prior", "second_moment"), [("gaussian", 1.0), ("scale_mixture", 0.3 * 25 + 0.7 * 1e-4)]
)
def test_prior_samples_have_its_variance(prior: str, second_moment: float) -> None:
    model = make_model(prior=prior, n_kl_samples=2000)
    drawn = model.draw_noise(torch.zeros(1, 2), rng())[:, -model.target.n_dims :]
    squares = drawn.square().flatten()
    error = 4 * squares.std() / math.sqrt(len(squares))
    assert abs(squares.mean() - second_moment) < error


def test_prior_is_of_the_scale_and_centre_that_the_method_says() -> None:
    """A KL is the same in all units: a posterior equal to the prior has none."""
    method = BayesByHypernet(generator="affine", prior_sd=0.3, n_kl_samples=100, initial_sd=0.3)
    problem = make_problem("classification", dtype=torch.float64)
    for prior_mean, near_zero in (("initial", True), ("zero", False)):
        torch.manual_seed(0)
        model = _GeneratedModel(problem, replace(method, prior_mean=prior_mean))
        kl = model(problem.train.inputs, model.draw_noise(problem.train.inputs, rng()))[1]
        assert (abs(kl.item()) < 0.15 * model.target.n_dims) == near_zero


def test_whole_vectors_are_compared_as_one_computation_with_exact_gradients() -> None:
    """Over stacked replicas, against autograd through all differences."""
    posterior, prior = noise(2, 5, 30), noise(2, 5, 30, seed=2)

    def by_differences(posterior: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
        def nearest(others: torch.Tensor, skipped: torch.Tensor) -> torch.Tensor:
            squares = (posterior.unsqueeze(1) - others).square().sum(-1)
            return (squares + skipped).amin(1)

        itself = torch.diag(posterior.new_full((5,), math.inf))
        ratio = nearest(prior, torch.zeros_like(itself)) / nearest(posterior, itself)
        return 15 * ratio.log().mean() + math.log(5 / 4)

    def ours(posterior: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
        return nearest_neighbour_kl(posterior, prior, whole_vectors=True)

    got = vmap(grad_and_value(ours))(posterior, prior)
    torch.testing.assert_close(got, vmap(grad_and_value(by_differences))(posterior, prior))
