"""What training tells and keeps: reports, validation, the best epoch, divergence."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
import torch
from bhnbench_doubles.training import dropout, hypernet, point, recipe, rng, silent, streams
from torch import nn

from bhnbench.contract import Problem, Split
from bhnbench.errors import DivergedError, StopRunError
from bhnbench.likelihoods import Categorical
from bhnbench.testing.problems import make_problem
from bhnbench_methods import replicas as replicas_module
from bhnbench_methods.bayesian_hypernet import BayesianHypernet
from bhnbench_methods.maximum_likelihood import MaximumLikelihood
from bhnbench_methods.mc_dropout import MCDropout
from bhnbench_methods.models import Model, PointModel
from bhnbench_methods.replicas import Replicas
from bhnbench_methods.training import train
from bhnbench_methods.validation import MAX_ROWS, Validation


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
    with pytest.raises(DivergedError, match=r"epoch \d+, step \d+: .*lower learning") as caught:
        method.fit(replace(problem, train=scaled), rng=rng(), report=silent)
    error = caught.value
    assert error.step is not None
    if error.step == 1:
        assert error.last_finite_loss is None
        assert "no loss was finite" in str(error)
    else:
        assert error.last_finite_loss is not None
        assert math.isfinite(error.last_finite_loss)
        assert f"step {error.step} of " in str(error)


def test_divergence_tells_the_last_finite_loss_of_the_replica_that_diverged() -> None:
    calm = make_problem("regression", epochs=30)
    targets = calm.train.targets.clone()
    targets[5] = 1e30  # one example, so that the batches before it have finite losses
    wild = replace(calm, train=Split(calm.train.inputs, targets))
    method = MaximumLikelihood()
    log = [Log(), Log()]
    with pytest.raises(DivergedError) as caught:
        method.fit_many([calm, wild], rngs=[rng(), rng(1)], reports=log, warm_starts=[None, None])
    with pytest.raises(DivergedError) as alone:
        method.fit(wild, rng=rng(1), report=silent)
    assert caught.value.step == alone.value.step
    assert caught.value.step is not None
    assert caught.value.step > 1
    last = caught.value.last_finite_loss
    assert last == pytest.approx(alone.value.last_finite_loss, rel=1e-4)
    assert pickle.loads(pickle.dumps(caught.value)).step == caught.value.step


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


class Log(list[tuple[int, dict[str, float]]]):
    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        self.append((step, dict(metrics)))

    def steps(self, metric: str) -> list[int]:
        return [step for step, metrics in self if metric in metrics]


@pytest.mark.parametrize(
    ("epochs", "validated"),
    [(1, [1]), (3, [1, 2, 3]), (45, [*range(3, 46, 3)]), (21, [*range(2, 21, 2), 21])],
)
def test_every_epoch_is_reported_and_about_twenty_are_validated(
    epochs: int, validated: list[int]
) -> None:
    log = Log()
    problem = make_problem("regression", n=8, epochs=epochs)
    MaximumLikelihood().fit(problem, rng=rng(), report=log)
    assert log.steps("train_nll") == [*range(1, epochs + 1)]
    assert log.steps("log_likelihood") == validated


def test_of_many_epochs_all_are_reported_and_about_twenty_scored() -> None:
    log = Log()
    problem = make_problem("regression", n=8, epochs=250)
    MaximumLikelihood().fit(problem, rng=rng(), report=log)
    assert log.steps("log_likelihood") == [*range(13, 250, 13), 250]
    assert log.steps("train_nll") == [*range(1, 251)]


def test_what_is_reported() -> None:
    log = Log()
    problem = make_problem("regression", epochs=4)
    MaximumLikelihood().fit(problem, rng=rng(), report=log)
    assert set(log[-1][1]) == {"log_likelihood", "rmse", "train_nll"}
    BayesianHypernet(width=8, kl_annealing=True).fit(problem, rng=rng(), report=log)
    seen = [metrics for _, metrics in log[-4:]]
    terms = {"train_nll", "kl", "kl_weight", "kl_over_nll"}
    assert set(seen[-1]) >= {"log_likelihood", "rmse"} | terms
    assert [metrics["kl_weight"] for metrics in seen] == pytest.approx([0, 0.5, 1, 1])
    for metrics in seen:  # the two terms of mean nll + weight * kl / n
        expected = metrics["kl_weight"] * metrics["kl"] / 48 / metrics["train_nll"]
        assert metrics["kl_over_nll"] == pytest.approx(expected)
    no_validation = Split(problem.train.inputs[:0], problem.train.targets[:0])
    problem = replace(problem, validation=no_validation)
    MaximumLikelihood().fit(problem, rng=rng(), report=log)
    assert set(log[-1][1]) == {"train_nll"}


class Counted(PointModel):
    """Tells a number of its own, another one for each model."""

    def figures(self) -> dict[str, float]:
        return {"first_weight": next(self.parameters()).flatten()[0].item()}


def test_a_models_own_figures_are_reported_where_it_is_validated() -> None:
    problem = make_problem("regression", n=8, epochs=40)
    models = [Counted(problem, 0.0) for _ in range(4)]
    logs = [Log(), Log()]
    own = [streams(i) for i in range(4)]
    train(models, [problem] * 4, own, logs, recipe(keep_best=False))
    for log, pair in zip(logs, (models[:2], models[2:]), strict=True):
        assert log.steps("first_weight") == log.steps("rmse") == [*range(2, 41, 2)]
        mean = sum(model.figures()["first_weight"] for model in pair) / 2
        assert log[-1][1]["first_weight"] == pytest.approx(mean)


def test_a_zero_nll_has_no_ratio() -> None:
    """A likelihood that is certain of everything."""

    class Certain(Categorical):
        def log_prob(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            return 0 * super().log_prob(outputs, targets)

    log = Log()
    problem = replace(make_problem("classification", epochs=1), likelihood=Certain(3))
    BayesianHypernet(width=8).fit(problem, rng=rng(), report=log)
    assert log[-1][1]["train_nll"] == 0
    assert "kl_over_nll" not in log[-1][1]


def test_validation_is_thinned_evenly_and_shared_by_members() -> None:
    rows = torch.arange(2500.0).unsqueeze(1)
    problem = replace(make_problem("regression"), validation=Split(rows, rows))
    validation = Validation([problem, problem], n_samples=1)
    used = validation.splits[0].inputs.squeeze(1)
    assert len(validation) == MAX_ROWS == len(used.unique())
    gaps = used.diff().unique().tolist()
    assert gaps == [2, 3]
    assert used[0] == 0
    assert used[-1] >= 2497
    assert validation.splits[0] is validation.splits[1]


@pytest.mark.parametrize("max_vmapped", [0, 2**20])
@pytest.mark.parametrize("make", [point, dropout, hypernet])
def test_validation_of_stacked_models_is_that_of_each(
    make: Callable[[Problem], Model], max_vmapped: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One batched call, with data, parameters and batch norm buffers of each model's own."""
    problems = [make_problem("images", seed=s, dtype=torch.float64) for s in range(3)]
    models = [make(problem) for problem in problems]
    for model in models:
        for buffer in model.buffers():
            if buffer.is_floating_point():
                buffer.data += torch.rand(buffer.shape, generator=rng(), dtype=buffer.dtype)
    alone = [
        Validation([problem], 4).outputs(Replicas([model], problem.likelihood.log_prob))
        for model, problem in zip(models, problems, strict=True)
    ]
    monkeypatch.setattr(replicas_module, "MAX_VMAPPED", max_vmapped)
    replicas = Replicas(models, problems[0].likelihood.log_prob)
    together = Validation(problems, 4).outputs(replicas)
    torch.testing.assert_close(together, torch.cat(alone))
    assert all(model.training for model in models)


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
