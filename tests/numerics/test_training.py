"""The training loop: its objective, its optimiser, its checkpoint, its reports."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from bhnbench.contract import Problem, Split
from bhnbench.errors import DivergedError, StopRunError
from bhnbench.likelihoods import Categorical
from bhnbench.testing.problems import make_problem
from bhnbench_methods.adam import Adam
from bhnbench_methods.bayesian_hypernet import BayesianHypernet, _HypernetModel
from bhnbench_methods.maximum_likelihood import MaximumLikelihood
from bhnbench_methods.mc_dropout import MCDropout, _DropoutModel
from bhnbench_methods.models import Model, PointModel
from bhnbench_methods.replicas import Replicas
from bhnbench_methods.streams import Streams
from bhnbench_methods.training import MAX_GRAD_NORM, Recipe, _batch_sizes, _Training, train

CPU = torch.device("cpu")


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def streams(seed: int = 0) -> Streams:
    return Streams.draw(rng(seed), CPU)


def silent(step: int, metrics: Mapping[str, float]) -> None:
    """Report to nobody."""


def point(problem: Problem) -> Model:
    return PointModel(problem, weight_decay=0.7)


def dropout(problem: Problem) -> Model:
    return _DropoutModel(problem, rate=0.4, weight_decay=0.7)


def hypernet(problem: Problem) -> Model:
    return _HypernetModel(problem, BayesianHypernet(width=8, initial_sd=0.5))


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
    per_example = isinstance(model, _DropoutModel)

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


def recipe(**options: float) -> Recipe:
    return Recipe(**{"learning_rate": 1e-2} | options)  # type: ignore[arg-type]


@pytest.mark.parametrize("keep_best", [True, False])
@pytest.mark.parametrize("n_replicas", [1, 3])
def test_best_epoch_is_restored_for_each_replica(keep_best: bool, n_replicas: int) -> None:
    """Overfitting on random labels, so that the best epoch is not the last."""
    problem = make_problem("images", n=24, epochs=20)
    labels = torch.randint(2, (24,), generator=rng(7))
    problem = replace(problem, train=Split(problem.train.inputs, labels))
    models = [PointModel(problem, 0.0) for _ in range(n_replicas)]
    reported: list[list[float]] = [[] for _ in models]
    reports = [
        lambda step, metrics, log=log: log.append(metrics["nll"])  # type: ignore[misc]
        for log in reported
    ]
    problems = [problem] * n_replicas
    own = [streams(i) for i in range(n_replicas)]
    train(models, problems, own, reports, recipe(keep_best=keep_best, learning_rate=0.03))
    for model, nlls in zip(models, reported, strict=True):
        assert min(nlls) < nlls[-1]
        outputs = model.sample(problem.validation.inputs, 1, rng=rng())
        final = problem.likelihood.scores(outputs, problem.validation.targets)["nll"]
        assert final == pytest.approx(min(nlls) if keep_best else nlls[-1], rel=1e-5)


@pytest.mark.parametrize(
    "method",
    [
        MaximumLikelihood(learning_rate=10.0),
        MCDropout(learning_rate=10.0),
        BayesianHypernet(learning_rate=10.0, width=8),
    ],
)
def test_divergence_names_the_place(method: MaximumLikelihood) -> None:
    problem = make_problem("regression", epochs=30)
    scaled = Split(problem.train.inputs * 1e20, problem.train.targets * 1e30)
    with pytest.raises(DivergedError, match=r"epoch \d+, step \d+: .*last loss .*lower learning"):
        method.fit(replace(problem, train=scaled), rng=rng(), report=silent)


def test_divergence_in_the_last_step_is_seen() -> None:
    """A finite loss whose step makes the parameters infinite, with nothing to validate on."""

    class Explodes(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: object, grad: torch.Tensor) -> torch.Tensor:
            return grad * float("nan")

    class Network(nn.Linear):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return Explodes.apply(super().forward(inputs))

    problem = make_problem("classification", n=8, epochs=1)
    empty = Split(problem.train.inputs[:0], problem.train.targets[:0])
    problem = replace(problem, validation=empty, network=lambda: Network(2, 3))
    with pytest.raises(DivergedError, match="every parameter must be finite"):
        MaximumLikelihood().fit(problem, rng=rng(), report=silent)


@pytest.mark.parametrize(
    ("epochs", "steps"), [(1, [1]), (3, [1, 2, 3]), (45, [*range(3, 46, 3)]), (21, None)]
)
def test_reports_about_twenty_times(epochs: int, steps: list[int] | None) -> None:
    seen: list[int] = []
    problem = make_problem("regression", n=8, epochs=epochs)
    MaximumLikelihood().fit(problem, rng=rng(), report=lambda step, metrics: seen.append(step))
    assert seen == (steps or [*range(2, 21, 2), 21])


def test_what_is_reported() -> None:
    seen: list[dict[str, float]] = []

    def report(step: int, metrics: Mapping[str, float]) -> None:
        seen.append(dict(metrics))

    problem = make_problem("regression", epochs=4)
    MaximumLikelihood().fit(problem, rng=rng(), report=report)
    assert set(seen[-1]) == {"log_likelihood", "rmse", "train_nll"}
    BayesianHypernet(width=8, kl_annealing=True).fit(problem, rng=rng(), report=report)
    assert set(seen[-1]) == {"log_likelihood", "rmse", "train_nll", "kl", "kl_weight"}
    assert [metrics["kl_weight"] for metrics in seen[-4:]] == pytest.approx([0.001, 0.501, 1, 1])
    no_validation = Split(problem.train.inputs[:0], problem.train.targets[:0])
    problem = replace(problem, validation=no_validation)
    MaximumLikelihood().fit(problem, rng=rng(), report=report)
    assert set(seen[-1]) == {"train_nll"}


def test_reported_train_nll_is_the_mean_over_examples() -> None:
    """At a learning rate of nearly zero, also with a smaller last batch."""
    problem = make_problem("classification", n=20, epochs=1, batch_size=16, dtype=torch.float64)
    seen: list[float] = []
    method = MaximumLikelihood(learning_rate=1e-8)
    fitted = method.fit(
        problem, rng=rng(), report=lambda step, metrics: seen.append(metrics["train_nll"])
    )
    outputs = fitted.sample(problem.train.inputs, 1, rng=rng())
    expected = problem.likelihood.scores(outputs, problem.train.targets)["nll"]
    assert seen == pytest.approx([expected], rel=1e-5)


def test_report_can_end_the_fit() -> None:
    def report(step: int, metrics: Mapping[str, float]) -> None:
        raise StopRunError

    with pytest.raises(StopRunError):
        MaximumLikelihood().fit(make_problem("regression"), rng=rng(), report=report)


def test_learning_rate_falls_tenfold() -> None:
    decayed = recipe(lr_decay=True)
    rates = [decayed.learning_rate_at(epoch, 5) for epoch in range(1, 6)]
    assert rates[0] == pytest.approx(1e-2)
    assert rates[-1] == pytest.approx(1e-3)
    assert rates[1] / rates[0] == pytest.approx(rates[4] / rates[3])
    assert decayed.learning_rate_at(1, 1) == pytest.approx(1e-2)
    assert recipe().learning_rate_at(3, 5) == 1e-2


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
    assert _batch_sizes(n, batch_size) == sizes


def test_the_kl_has_its_full_weight_in_the_second_half() -> None:
    """Only those epochs may be kept: the result is a fit of the ELBO."""
    recipe = Recipe(learning_rate=1e-3, kl_annealing=True)
    whole = [epoch for epoch in range(1, 41) if recipe.kl_weight_at(epoch, 40) == 1.0]
    assert whole == list(range(21, 41))


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
