"""Dropout: its masks, its bound, learned rates, and what prediction makes of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from scipy import optimize
from torch import nn

from bhnbench.contract import Problem, Split
from bhnbench.testing.problems import make_problem
from bhnbench_methods.dropout import Dropout
from bhnbench_methods.dropout_model import DropoutMethod, DropoutModel, hard_mask, relaxed_mask
from bhnbench_methods.mc_dropout import MCDropout

F64 = torch.float64


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def problem_of(network: Callable[[], nn.Module], inputs: torch.Tensor) -> Problem:
    data = Split(inputs, torch.zeros(len(inputs), dtype=torch.long))
    return replace(make_problem("classification"), train=data, network=network)


def model_of(method: DropoutMethod, network: Callable[[], nn.Module], *shape: int) -> DropoutModel:
    torch.manual_seed(0)
    model = method.make_model(problem_of(network, torch.randn(8, *shape, dtype=F64)))
    assert isinstance(model, DropoutModel)
    return model.eval()


def linear_hidden() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 50), nn.Linear(50, 3))


def convnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3),
        nn.ReLU(),
        nn.Conv2d(3, 4, 2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 2),
    )


# Masks


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_a_mask_drops_with_its_rate_and_has_mean_one(rate: float) -> None:
    uniform = torch.rand(200_000, dtype=F64, generator=rng())
    mask = hard_mask(uniform, torch.tensor(rate, dtype=F64))
    assert mask.unique().tolist() == pytest.approx([0, 1 / (1 - rate)])
    standard_error = math.sqrt(rate / (1 - rate) / len(mask))
    assert abs(mask.mean().item() - 1) < 4 * standard_error


def test_a_relaxed_mask_becomes_the_hard_one() -> None:
    uniform = torch.rand(10_000, dtype=F64, generator=rng())
    rate = torch.tensor(0.3, dtype=F64)
    hard = hard_mask(uniform, rate)
    gaps = [(relaxed_mask(uniform, rate, t) - hard).abs().mean().item() for t in (0.1, 0.01, 1e-4)]
    assert gaps[0] < 0.1
    assert gaps[2] < 1e-3 < gaps[1] < 0.15 * gaps[0]


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.5])
def test_a_relaxed_mask_keeps_the_mean(rate: float) -> None:
    """The logistic noise is widened by one per cent (temperature squared), and no more."""
    uniform = torch.rand(400_000, dtype=F64, generator=rng())
    mask = relaxed_mask(uniform, torch.tensor(rate, dtype=F64))
    assert mask.mean().item() == pytest.approx(1, abs=0.01)


def test_the_gradient_in_a_rate_is_that_of_finite_differences() -> None:
    uniform = torch.rand(20, dtype=F64, generator=rng())
    rate = torch.tensor(0.3, dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda r: relaxed_mask(uniform, r), (rate,))


def test_the_least_uniform_number_leaves_gradients_finite() -> None:
    rate = torch.tensor(0.3, requires_grad=True)
    relaxed_mask(torch.zeros(1), rate).sum().backward()
    assert rate.grad is not None
    assert rate.grad.isfinite()


def test_in_training_every_example_has_masks_of_its_own() -> None:
    model = model_of(MCDropout(), linear_hidden, 2)
    inputs = torch.ones(6, 2, dtype=F64)
    outputs, _ = model(inputs, model.draw_noise(inputs, rng()))
    assert outputs.unique(dim=0).shape[0] == 6


def test_one_mask_serves_all_inputs_of_a_sample() -> None:
    model = model_of(MCDropout(), linear_hidden, 2)
    samples = model.sample(torch.ones(5, 2, dtype=F64), 6, rng=rng())
    torch.testing.assert_close(samples, samples[:, :1].expand_as(samples))
    assert samples[:, 0].unique(dim=0).shape[0] == 6


def test_units_and_maps() -> None:
    units = model_of(MCDropout(input_rate=0.5), convnet, 1, 7, 7)
    maps = model_of(MCDropout(input_rate=0.5, drop="maps"), convnet, 1, 7, 7)
    assert units.shapes == [(1, 7, 7), (3, 5, 5), (64,)]
    assert maps.shapes == [(1, 1, 1), (3, 1, 1), (64,)]


def test_dropping_maps_is_dropping_weights() -> None:
    """One sample is the network with whole slices of its weights set to zero."""
    model = model_of(MCDropout(layer_rates="0.5, 0.2", drop="maps"), convnet, 1, 7, 7)
    inputs, uniform = torch.randn(4, 1, 7, 7, dtype=F64), torch.rand(3 + 64, dtype=F64)
    actual = model.run_masked(inputs, uniform)
    plain = convnet().to(F64)
    plain.load_state_dict(
        {n.replace(".layer", ""): p for n, p in model.network.named_parameters()}
    )
    with torch.no_grad():
        plain[2].weight *= ((uniform[:3] >= 0.5) / 0.5).view(1, 3, 1, 1)
        plain[5].weight *= (uniform[3:] >= 0.2) / 0.8
    torch.testing.assert_close(actual, plain(inputs))


# Prediction


@pytest.mark.parametrize("rate", [0.3, 0.7])
def test_the_mean_over_masks_of_a_linear_network_is_the_weight_scaling_rule(rate: float) -> None:
    n_samples = 20_000
    model = model_of(MCDropout(rate=rate), linear_hidden, 2)
    inputs = torch.randn(4, 2, dtype=F64)
    with torch.no_grad():
        samples = model.sample(inputs, n_samples, rng=rng(1))
        scaled = model_of(Dropout(rate=rate), linear_hidden, 2).sample(inputs, 1, rng=rng())[0]
    error = samples.std(0) / math.sqrt(n_samples)
    assert ((samples.mean(0) - scaled).abs() < 4.5 * error).all()
    # var = rate / (1 - rate) * sum_j (w_j h_j)^2, by hand
    contributions = model.network[0](inputs).unsqueeze(1) * model.network[1].layer.weight
    variance = rate / (1 - rate) * contributions.square().sum(-1)
    torch.testing.assert_close(samples.var(0), variance, rtol=0.1, atol=0)


@pytest.mark.parametrize("rate", [0.5, 0.2])
def test_the_weight_scaling_rule_is_the_geometric_mean_of_a_softmax_layer(rate: float) -> None:
    """Over all 2^5 masks, each with its probability."""

    def one_layer() -> nn.Module:
        return nn.Linear(5, 3)

    inputs = torch.randn(4, 5, dtype=F64)
    model = model_of(MCDropout(input_rate=rate), one_layer, 5)
    total = torch.zeros(4, 3, dtype=F64)
    for bits in itertools.product((0.0, 1.0), repeat=5):
        uniform = torch.tensor(bits, dtype=F64) * 0.999
        probability = math.prod(1 - rate if bit else rate for bit in bits)
        total += probability * model.run_masked(inputs, uniform).log_softmax(-1)
    scaled = model_of(Dropout(input_rate=rate), one_layer, 5).sample(inputs, 1, rng=rng())[0]
    torch.testing.assert_close(total.softmax(-1), scaled.softmax(-1))


def test_dropout_predicts_with_one_network() -> None:
    problem = make_problem("images")
    fitted = Dropout().fit(problem, rng=rng(), report=lambda step, metrics: None)
    samples = fitted.sample(problem.validation.inputs, 50, rng=rng())
    assert samples.stride(0) == 0
    assert not fitted.is_random


def test_without_rates_it_is_the_network_itself() -> None:
    model = model_of(MCDropout(rate=0.0), linear_hidden, 2)
    inputs = torch.randn(4, 2, dtype=F64)
    outputs, _ = model(inputs, model.draw_noise(inputs, rng()))
    expected = model.network(inputs)
    torch.testing.assert_close(outputs, expected)
    samples = model.sample(inputs, 3, rng=rng())
    torch.testing.assert_close(samples, expected.expand(3, -1, -1))


# The bound


def test_fixed_rates_scale_the_prior_of_their_layer() -> None:
    method = MCDropout(layer_rates="0.5, 0", input_rate=0.2, weight_decay=3.0)
    model = model_of(method, convnet, 1, 7, 7)
    inputs = torch.randn(2, 1, 7, 7, dtype=F64)
    _, kl = model(inputs, model.draw_noise(inputs, rng()))
    squares = [p.square().sum() for p in model.parameters() if p.ndim > 1]
    torch.testing.assert_close(kl, 1.5 * (squares[0] / 0.8 + squares[1] / 0.5 + squares[2]))


@dataclass(frozen=True)
class Peaks:
    """The posterior of each row of ``M``: a narrow Gaussian around the row, or around zero."""

    rows: torch.Tensor
    rate: float
    sd: float = 1e-4

    def kl_by_monte_carlo(self, precision: float, n: int) -> tuple[float, float]:
        """To N(0, 1/precision), with its standard error."""
        kept = torch.rand(n, len(self.rows), 1, dtype=F64, generator=rng(1)) >= self.rate
        noise = torch.randn(n, *self.rows.shape, dtype=F64, generator=rng(2))
        draws = kept * self.rows + self.sd * noise
        away = (draws - self.rows).square().sum(-1) / -(2 * self.sd**2) + math.log(1 - self.rate)
        at_zero = draws.square().sum(-1) / -(2 * self.sd**2) + math.log(self.rate)
        log_q = torch.logaddexp(away, at_zero) - self.rows.shape[1] * math.log(self.sd)
        log_p = -0.5 * precision * draws.square().sum(-1)
        kl = (log_q - log_p).sum(-1)
        return kl.mean().item(), kl.std().item() / math.sqrt(n)


def test_the_kl_is_that_of_two_narrow_peaks_for_every_row_of_weights() -> None:
    """Up to a constant, so two settings of weights and rate are compared."""
    precision, values = 0.7, []
    for rate, scale in ((0.2, 0.3), (0.6, 1.5)):
        method = MCDropout(input_rate=rate, learn_rates=True, weight_decay=precision)
        model = model_of(method, lambda: nn.Linear(5, 3), 5)
        with torch.no_grad():
            model.gates[0].layer.weight.mul_(scale)
            inputs = torch.randn(2, 5, dtype=F64)
            _, kl = model(inputs, model.draw_noise(inputs, rng()))
            rows = model.gates[0].layer.weight.T / (1 - rate)
        values.append((kl.item(), *Peaks(rows, rate).kl_by_monte_carlo(precision, 100_000)))
    (ours, expected, error), (ours_2, expected_2, error_2) = values
    assert abs((ours - ours_2) - (expected - expected_2)) < 4 * math.hypot(error, error_2)


def best_rate(n: int, weight: float, noise_sd: float) -> float:
    """Of the bound of ``y = weight * x`` with known weight and all ``x = 1``, by quadrature."""
    uniform = (torch.arange(20_000, dtype=F64) + 0.5) / 20_000

    def objective(rate: float) -> float:
        masks = relaxed_mask(uniform, torch.tensor(rate, dtype=F64))
        squared_error = weight**2 * (masks - 1).square().mean().item()
        entropy = -rate * math.log(rate) - (1 - rate) * math.log(1 - rate)
        return n / (2 * noise_sd**2) * squared_error - entropy

    return float(optimize.minimize_scalar(objective, bounds=(1e-6, 1 - 1e-6), method="bounded").x)


@pytest.mark.parametrize(("n", "low", "high"), [(2, 0.3, 0.5), (20, 0.05, 0.08)])
def test_a_learned_rate_falls_as_data_come_in(n: int, low: float, high: float) -> None:
    """To the optimum of the bound: half where there are none, zero where there are many."""
    weight, noise_sd = 0.5, 1.0

    class Known(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(1, 1, bias=False)
            nn.init.constant_(self.layer.weight, weight)
            self.requires_grad_(False)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            mean = self.layer(inputs)
            return torch.cat((mean, torch.full_like(mean, math.log(math.expm1(noise_sd)))), dim=-1)

    inputs = torch.ones(n, 1, dtype=F64).repeat_interleave(2000 // n, dim=0)
    problem = make_problem("regression", dtype=F64)
    data = Split(inputs, weight * inputs)
    nothing = Split(inputs[:0], inputs[:0])
    problem = replace(problem, train=data, validation=nothing, network=Known)
    model = MCDropout(input_rate=0.2, learn_rates=True).make_model(problem)
    optimiser = torch.optim.Adam([model.logits], lr=0.05)
    rates, draws = [], rng(3)
    for _ in range(250):
        optimiser.zero_grad()
        outputs, kl = model(inputs, model.draw_noise(inputs, draws))
        nll = -problem.likelihood.log_prob(outputs, data.targets).mean()
        (nll + kl / n).backward()
        optimiser.step()
        rates.append(model.figures()["rate_1"])
    found, expected = sum(rates[-100:]) / 100, best_rate(n, weight, noise_sd)
    assert low < expected < high
    assert found == pytest.approx(expected, rel=0.1)


def test_learned_rates_are_reported() -> None:
    heard: list[dict[str, float]] = []
    problem = make_problem("images", epochs=5)
    method = MCDropout(learn_rates=True, rate=0.3, learning_rate=0.02)
    method.fit(problem, rng=rng(), report=lambda step, metrics: heard.append(dict(metrics)))
    learned = [heard[-1]["rate_1"], heard[-1]["rate_2"]]
    assert "rate_3" not in heard[-1]
    assert all(0 < rate < 1 and abs(rate - 0.3) > 0.01 for rate in learned)


@pytest.mark.parametrize("method", [Dropout, MCDropout])
def test_without_rates_there_are_none_to_learn(method: type[DropoutMethod]) -> None:
    problem = make_problem("classification")
    samples = [
        method(rate=0.0, learn_rates=learn)
        .fit(problem, rng=rng(), report=lambda step, metrics: None)
        .sample(problem.validation.inputs, 2, rng=rng())
        for learn in (True, False)
    ]
    torch.testing.assert_close(*samples, rtol=0, atol=0)


# Settings


@pytest.mark.parametrize("text", ["", "0.1,", "a, b", "1.0, 0.2", "-0.1", "nan", "0.1; 0.2"])
def test_wrong_rates_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"layer_rates must be numbers in \[0, 0.99\]"):
        MCDropout(layer_rates=text)


def test_the_number_of_rates_is_that_of_the_layers_but_the_first() -> None:
    problem = make_problem("classification")
    assert MCDropout(layer_rates="0.4").supports(problem) is None
    assert MCDropout(layer_rates="0.4, 0.1").supports(problem) == (
        "layer_rates must hold one rate for each Linear or Conv layer but the first, "
        "here 1, but holds 2: '0.4, 0.1'"
    )


def test_one_layer_is_enough_where_inputs_are_dropped() -> None:
    problem = replace(make_problem("classification"), network=lambda: nn.Linear(2, 3))
    assert MCDropout(input_rate=0.1).supports(problem) is None
    assert MCDropout().supports(problem) == (
        "it needs at least two Linear or Conv layers, but the network has 1"
    )


def test_a_layer_that_sees_no_examples_is_refused() -> None:
    class PerPixel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(1, 4), nn.Linear(4, 3)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            rows = self.second(self.first(inputs.reshape(-1, 1)).tanh())
            return rows.view(len(inputs), -1, 3).sum(1)

    problem = replace(make_problem("classification"), network=PerPixel)
    reason = MCDropout().supports(problem)
    assert reason is not None
    assert "'second' must see one row an example" in reason
