"""The steps of training: objective, gradients, optimiser, minibatches, schedules."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from bhnbench_doubles.training import dropout, hypernet, point, recipe, rng, silent, streams
from torch import nn

from bhnbench.contract import Problem, Split
from bhnbench.likelihoods import Categorical
from bhnbench.testing.problems import make_problem
from bhnbench_methods import replicas as replicas_module
from bhnbench_methods.bayesian_hypernet import BayesianHypernet
from bhnbench_methods.dropout_model import DropoutModel
from bhnbench_methods.maximum_likelihood import MaximumLikelihood
from bhnbench_methods.minibatches import Minibatches, batch_sizes
from bhnbench_methods.models import Model, PointModel
from bhnbench_methods.optimisers import Adam
from bhnbench_methods.replicas import Replicas
from bhnbench_methods.schedules import (
    Schedule,
    cool_down,
    cosine_cycles,
    late_in_cycles,
    polynomial_decay,
    tenfold_decay,
    warm_up,
)
from bhnbench_methods.training import MAX_GRAD_NORM, Recipe, _Training


@pytest.mark.parametrize("make", [point, dropout, hypernet])
@pytest.mark.parametrize("batch_size", [1, 12, 24])
def test_minibatch_objective_is_unbiased(
    make: Callable[[Problem], Model], batch_size: int
) -> None:
    """With the noise held fixed, loss and gradient of equal minibatches average to the whole."""
    problem = make_problem("classification", n=48, dtype=torch.float64)
    model = make(problem)
    replicas = Replicas([model], problem.likelihood.log_prob)
    inputs, targets = problem.train.inputs, problem.train.targets
    noise = model.draw_noise(inputs, rng())
    per_example = isinstance(model, DropoutModel)

    def objective(rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
        used = noise[rows] if per_example else noise
        nll, kl = replicas.backward(inputs[None, rows], targets[None, rows], used[None], 1 / 48)
        return nll + kl / 48, replicas.grad.clone()

    full_loss, full_gradient = objective(slice(0, 48))
    parts = [objective(slice(i, i + batch_size)) for i in range(0, 48, batch_size)]
    torch.testing.assert_close(torch.stack([loss for loss, _ in parts]).mean(0), full_loss)
    torch.testing.assert_close(torch.stack([grad for _, grad in parts]).mean(0), full_gradient)


def test_optimum_does_not_depend_on_batch_size() -> None:
    """The analytic MAP of a location model: sum(y) / (n + decay * noise variance)."""

    class Location(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean = nn.Linear(1, 1, bias=False)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            mean = self.mean(inputs)
            return torch.cat((mean, torch.full_like(mean, math.log(math.expm1(1.0)))), dim=-1)

    problem = make_problem("regression", n=24, epochs=400, dtype=torch.float64)
    data = Split(torch.ones_like(problem.train.inputs), problem.train.targets + 3)
    expected = data.targets.sum().item() / (24 + 5.0)
    for batch_size in (24, 8):
        problem = replace(
            problem,
            train=data,
            validation=Split(data.inputs[:0], data.targets[:0]),
            network=Location,
            batch_size=batch_size,
        )
        method = MaximumLikelihood(weight_decay=5.0, learning_rate=0.05, lr_decay=True)
        fitted = method.fit(problem, rng=rng(), report=silent)
        location = fitted.sample(data.inputs[:1], 1, rng=rng())[0, 0, 0].item()
        assert location == pytest.approx(expected, abs=0.03 if batch_size < 24 else 1e-4)


def test_adam_is_that_of_torch() -> None:
    ours = torch.randn(3, 5, dtype=torch.float64, generator=rng())
    theirs = ours.clone().requires_grad_()
    grad = torch.zeros_like(ours)
    adam, reference = Adam(ours, grad), torch.optim.Adam([theirs])
    for step in range(5):
        grad.copy_(torch.randn(3, 5, dtype=torch.float64, generator=rng(step)))
        theirs.grad = grad.clone()
        reference.param_groups[0]["lr"] = 0.1 / (step + 1)
        adam.step(0.1 / (step + 1))
        reference.step()
    torch.testing.assert_close(ours, theirs.detach())


def test_replicas_are_clipped_apart() -> None:
    problem = make_problem("classification")
    models = [PointModel(problem, 0.0) for _ in range(3)]
    training = _Training(
        models, [problem] * 3, [streams(i) for i in range(3)], [silent] * 3, recipe()
    )
    grad = training.replicas.grad
    grad.copy_(torch.randn(grad.shape, generator=rng()))
    grad *= torch.tensor([[0.01], [100.0], [1.0]]) / grad.norm(dim=1, keepdim=True)
    before = grad.clone()
    training._clip_gradients()
    torch.testing.assert_close(grad[[0, 2]], before[[0, 2]])
    torch.testing.assert_close(grad[1], before[1] / 100 * MAX_GRAD_NORM)


def test_adversarial_inputs_go_up_the_slope_within_each_inputs_range() -> None:
    """Against the definition, written out for a linear model whose slope is known."""
    problem = make_problem("classification", n=12, dtype=torch.float64)
    inputs, targets = problem.train.inputs, problem.train.targets
    problem = replace(problem, network=lambda: nn.Linear(2, 3, dtype=torch.float64))
    models = [PointModel(problem, 0.7) for _ in range(2)]
    expected = []
    for model in models:
        weight, bias = (p.detach().clone().requires_grad_() for p in model.network.parameters())
        logits = inputs @ weight.mT + bias
        slope = (logits.softmax(-1) - nn.functional.one_hot(targets, 3)) @ weight  # dnll/dx
        ranges = inputs.max(0).values - inputs.min(0).values
        shifted = (inputs + 0.1 * ranges * slope.sign()).detach()
        loss = (
            nn.functional.cross_entropy(logits, targets)
            + nn.functional.cross_entropy(shifted @ weight.mT + bias, targets)
            + 0.7 / 2 * weight.square().sum() / 12
        )
        grads = torch.autograd.grad(loss, (weight, bias))
        expected.append(torch.cat([grad.flatten() for grad in grads]))
    own = [streams(i) for i in range(2)]
    training = _Training(models, [problem] * 2, own, [silent] * 2, recipe(adversarial_step=0.1))
    both = inputs.expand(2, -1, -1), targets.expand(2, -1)
    nll, _ = training._backward(*both, weight=1 / 12)
    torch.testing.assert_close(training.replicas.grad, torch.stack(expected))
    plain, _ = training.replicas.backward(*both, torch.empty(2, 0), 1 / 12)
    torch.testing.assert_close(nll, plain)  # what is reported is that of the data


@pytest.mark.parametrize("make", [point, dropout, hypernet])
def test_gradients_one_by_one_are_those_of_all_together(
    make: Callable[[Problem], Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large models are faster one by one; batch norm's statistics move the same way too."""
    problems = [make_problem("images", seed=s, dtype=torch.float64) for s in range(3)]
    inputs = torch.stack([problem.train.inputs for problem in problems])
    targets = torch.stack([problem.train.targets for problem in problems])
    results = []
    for max_vmapped in (0, 2**20):
        monkeypatch.setattr(replicas_module, "MAX_VMAPPED", max_vmapped)
        torch.manual_seed(0)
        models = [make(problem) for problem in problems]
        noise = torch.stack(
            [model.draw_noise(x, rng()) for model, x in zip(models, inputs, strict=True)]
        )
        replicas = Replicas(models, problems[0].likelihood.log_prob)
        losses = replicas.adversarial_backward(inputs, targets, noise, 0.1, torch.tensor(0.01))
        results.append([*losses, replicas.grad, *replicas.state()])
    torch.testing.assert_close(*results)


def test_input_ranges_are_those_of_each_replica() -> None:
    splits = [Split(torch.rand(5, 2, generator=rng(i)) * (i + 1), torch.zeros(5)) for i in (0, 1)]
    batches = Minibatches([splits[1], splits[0], splits[1]], batch_size=2)
    expected = [s.inputs.amax(0) - s.inputs.amin(0) for s in (splits[1], splits[0], splits[1])]
    torch.testing.assert_close(batches.input_ranges(), torch.stack(expected).unsqueeze(1))


def test_learning_rate_falls_tenfold() -> None:
    decayed = recipe(lr_schedule=tenfold_decay)
    rates = [decayed.learning_rate_at(step, 5) for step in range(1, 7)]
    assert rates[0] == pytest.approx(1e-2)
    assert rates[5] == pytest.approx(1e-3)  # where a sixth step would be
    assert rates[1] / rates[0] == pytest.approx(rates[4] / rates[3])
    assert recipe().learning_rate_at(3, 5) == 1e-2
    assert polynomial_decay(0) == 1
    assert polynomial_decay(1) == pytest.approx(0.1)


def test_cycles_restart_at_their_first_step() -> None:
    """21 steps in 3 cycles: from the whole rate down, half of it in the middle."""
    cycles, late = cosine_cycles(3), late_in_cycles(3, 0.5)
    rates = [cycles(step / 21) for step in range(21)]
    assert rates[:7] == pytest.approx([0.5 * (1 + math.cos(math.pi * i / 7)) for i in range(7)])
    assert rates[7:14] == pytest.approx(rates[:7])
    assert rates[14:] == pytest.approx(rates[:7])
    assert [late(step / 21) for step in range(7)] == [0, 0, 0, 0, 1, 1, 1]
    for n_cycles in range(1, 50):  # rounding puts no restart into the cycle before
        assert cosine_cycles(n_cycles)(7 / n_cycles) == pytest.approx(1)


def test_every_example_is_used_once_an_epoch() -> None:
    problem = make_problem("regression", n=23)
    rows = torch.arange(23.0).unsqueeze(1)
    numbered = replace(problem, train=Split(rows, rows), batch_size=5)
    other = replace(numbered, train=Split(rows + 100, rows + 100))
    models = [PointModel(numbered, 0.0) for _ in range(3)]
    own = [streams(i) for i in range(3)]
    problems = [numbered, other, numbered]
    training = _Training(models, problems, own, [silent] * 3, recipe())
    batches = list(training.batches.epoch([s.order for s in own]))
    assert [inputs.shape for inputs, _ in batches] == [(3, 5, 1)] * 4 + [(3, 3, 1)]
    inputs = torch.cat([inputs for inputs, _ in batches], dim=1).squeeze(-1)
    targets = torch.cat([targets for _, targets in batches], dim=1).squeeze(-1)
    assert torch.equal(inputs, targets)
    for seen, offset in zip(inputs, (0, 100, 0), strict=True):
        assert seen.sort().values.tolist() == [offset + i for i in range(23)]
    assert not torch.equal(inputs[0], inputs[2])


@pytest.mark.parametrize(
    ("n", "batch_size", "sizes"),
    [(33, 32, [33]), (34, 32, [32, 2]), (65, 32, [32, 33]), (1, 32, [1]), (3, 1, [1, 1, 1])],
)
def test_no_batch_of_one_is_left_over(n: int, batch_size: int, sizes: list[int]) -> None:
    """Batch norm cannot train on a single example."""
    assert batch_sizes(n, batch_size) == sizes


def test_the_kl_has_its_full_weight_in_the_second_half() -> None:
    """Only those epochs may be kept: the result is a fit of the ELBO."""
    recipe = Recipe(learning_rate=1e-3, kl_schedule=warm_up(0, 0.5))
    whole = [epoch for epoch in range(1, 41) if recipe.kl_weight_at(epoch, 40) == 1.0]
    assert whole == list(range(21, 41))


@pytest.mark.parametrize("schedule", [warm_up(0, 0.5), warm_up(0.025, 0.1), cool_down(100, 0.8)])
@pytest.mark.parametrize("epochs", [1, 2, 4])
def test_the_last_epoch_has_the_weights_of_the_elbo(schedule: Schedule, epochs: int) -> None:
    """However few there are: what is kept is a fit of the ELBO."""
    recipe = Recipe(learning_rate=1e-3, kl_schedule=schedule)
    assert recipe.kl_weight_at(epochs, epochs) == 1.0
    if epochs > 1:
        assert recipe.kl_weight_at(1, epochs) == schedule(0.0)


def test_a_default_hypernet_learns_from_few_labels() -> None:
    """With 20 labels it fits about as well as the plain network: the prior does not win."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(20, 16, generator=generator)
    targets = (inputs[:, 0] > 0).long() + 2 * (inputs[:, 1] > 0).long()
    problem = Problem(
        train=Split(inputs, targets),
        validation=Split(inputs[:0], targets[:0]),
        likelihood=Categorical(4),
        network=partial(_classifier, 16, 100, 4),
        epochs=200,
        batch_size=20,
    )
    fitted = BayesianHypernet().fit(problem, rng=rng(), report=lambda step, metrics: None)
    outputs = fitted.sample(inputs, 100, rng=rng())
    assert problem.likelihood.scores(outputs, targets)["nll"] < 0.5 * math.log(4)


def _classifier(n_inputs: int, n_hidden: int, n_outputs: int) -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Linear(n_inputs, n_hidden), torch.nn.ReLU(), torch.nn.Linear(n_hidden, n_outputs)
    )
