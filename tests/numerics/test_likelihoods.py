"""Likelihoods against torch.distributions, and their scores on cases with known answers."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.metrics import log_loss
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Independent, MixtureSameFamily, Normal

from bhnbench.likelihoods import MIN_SCALE, Categorical, Gaussian


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def raw_scale(sd: float) -> float:
    """The raw scale that gives a standard deviation."""
    return math.log(math.expm1(sd - MIN_SCALE))


def test_categorical_log_prob_is_torchs(rng):
    logits = torch.randn(5, 7, 3, generator=rng)
    targets = torch.randint(3, (7,), generator=rng)
    expected = TorchCategorical(logits=logits).log_prob(targets)
    torch.testing.assert_close(Categorical(3).log_prob(logits, targets), expected)
    torch.testing.assert_close(Categorical(3).log_prob(logits[0], targets), expected[0])


def test_gaussian_log_prob_is_torchs(rng):
    outputs = torch.randn(5, 7, 4, generator=rng)
    targets = torch.randn(7, 2, generator=rng)
    mean, sd = Gaussian().split(outputs)
    expected = Normal(mean, sd).log_prob(targets).sum(-1)
    torch.testing.assert_close(Gaussian().log_prob(outputs, targets), expected)


def test_gaussian_outputs_are_means_then_raw_scales():
    mean, sd = Gaussian().split(torch.tensor([[1.0, 2.0, raw_scale(0.5), raw_scale(3.0)]]))
    assert mean.tolist() == [[1.0, 2.0]]
    torch.testing.assert_close(sd, torch.tensor([[0.5, 3.0]]))


def test_gaussian_density_stays_finite_at_a_vanishing_scale():
    outputs = torch.tensor([[0.0, -1e4]], requires_grad=True)
    log_prob = Gaussian().log_prob(outputs, torch.tensor([[1e-3]]))
    log_prob.sum().backward()
    assert log_prob.isfinite().all()
    assert outputs.grad is not None
    assert outputs.grad.isfinite().all()


def test_gaussian_scores_of_one_sample_have_a_closed_form():
    outputs = torch.tensor([[[0.0, raw_scale(1.0)], [0.0, raw_scale(1.0)]]])
    scores = Gaussian().scores(outputs, torch.tensor([[1.0], [-1.0]]))
    assert scores["rmse"] == pytest.approx(1)
    assert scores["log_likelihood"] == pytest.approx(-0.5 - 0.5 * math.log(2 * math.pi))


def test_gaussian_scores_take_the_mixture_not_the_mean_of_densities():
    far_apart = torch.tensor([[[-10.0, raw_scale(1.0)]], [[10.0, raw_scale(1.0)]]])
    scores = Gaussian().scores(far_apart, torch.tensor([[10.0]]))
    assert scores["rmse"] == pytest.approx(10)  # of the mixture's mean, 0
    expected = -0.5 * math.log(2 * math.pi) - math.log(2)  # half the mass is on the target
    assert scores["log_likelihood"] == pytest.approx(expected)


def test_categorical_scores_of_a_perfect_predictive():
    targets = torch.tensor([0, 1, 2])
    logits = 1000 * torch.nn.functional.one_hot(targets, 3).float()
    scores = Categorical(3).scores(logits.expand(4, 3, 3), targets)
    assert scores == {"accuracy": 100, "nll": 0, "brier": 0, "ece": 0}


def test_categorical_scores_average_probabilities_not_logits():
    sure = torch.tensor([[[1000.0, 0.0]], [[0.0, 1.0]]])  # probabilities (1, 0) and (.27, .73)
    scores = Categorical(2).scores(sure, torch.tensor([1]))
    probability = torch.softmax(torch.tensor([0.0, 1.0]), 0)[1].item() / 2
    assert scores["nll"] == pytest.approx(-math.log(probability), rel=1e-5)
    assert scores["accuracy"] == 0


def test_categorical_scores_are_those_of_the_mean_probabilities(rng):
    logits = 3 * torch.randn(20, 50, 4, generator=rng, dtype=torch.float64)
    targets = torch.randint(4, (50,), generator=rng)
    scores = Categorical(4).scores(logits, targets)
    probs = torch.softmax(logits, -1).mean(0)
    assert scores["nll"] == pytest.approx(log_loss(targets, probs, labels=range(4)))
    assert scores["accuracy"] == pytest.approx(
        100 * (probs.argmax(-1) == targets).double().mean().item()
    )
    assert scores["brier"] == pytest.approx(
        (probs - torch.nn.functional.one_hot(targets, 4)).square().sum(-1).mean().item()
    )


@pytest.mark.parametrize("n", [1, 9])
def test_gaussian_log_likelihood_is_that_of_torchs_mixture(rng, n):
    outputs = torch.randn(30, n, 4, generator=rng, dtype=torch.float64)
    targets = torch.randn(n, 2, generator=rng, dtype=torch.float64)
    mean, sd = (values.transpose(0, 1) for values in Gaussian().split(outputs))
    mixture = MixtureSameFamily(
        TorchCategorical(logits=torch.zeros(n, 30, dtype=torch.float64)),
        Independent(Normal(mean, sd), 1),
    )
    expected = mixture.log_prob(targets).mean().item()
    assert Gaussian().scores(outputs, targets)["log_likelihood"] == pytest.approx(expected)


@pytest.mark.parametrize("likelihood", [Categorical(3), Gaussian()])
def test_inputs_are_not_changed(likelihood, rng):
    outputs = torch.randn(2, 4, 4 if isinstance(likelihood, Gaussian) else 3, generator=rng)
    targets = (
        torch.randn(4, 2, generator=rng)
        if isinstance(likelihood, Gaussian)
        else torch.randint(3, (4,), generator=rng)
    )
    before = outputs.clone(), targets.clone()
    likelihood.scores(outputs, targets)
    assert torch.equal(outputs, before[0])
    assert torch.equal(targets, before[1])
