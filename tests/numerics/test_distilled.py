"""A student against what its teacher predicts, and how a teacher is named."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from bhnbench.contract import Problem, Split
from bhnbench.errors import ContractError, InvalidSweepError, StopRunError
from bhnbench.likelihoods import Categorical, Gaussian
from bhnbench.sweep.document import read_sweep
from bhnbench.testing.fitting import Listener, draw, fit, fit_rng
from bhnbench.testing.problems import make_problem
from bhnbench_methods.deep_ensemble import DeepEnsemble
from bhnbench_methods.distilled import Distilled
from bhnbench_methods.maximum_likelihood import MaximumLikelihood
from bhnbench_methods.soft_targets import SoftCategorical, SoftGaussian

N_DRAWS = 200_000


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def pair(**settings) -> Distilled:
    """A student of two networks, whose predictive two samples tell exactly."""
    given = {"teacher": "deep_ensemble", "teacher_settings": "n_members: 2", **settings}
    return Distilled(n_teacher_samples=2, **given)


def table(kind: str, n: int, epochs: int) -> Problem:
    """Examples of which each has parameters of its own, so that a network can fit anything."""
    inputs = torch.eye(n, dtype=torch.float64)
    if kind == "classification":
        targets, likelihood, n_outputs = torch.arange(n) % 3, Categorical(3), 3
    else:
        targets = torch.linspace(-1, 1, 2 * n, dtype=torch.float64).view(n, 2)
        likelihood, n_outputs = Gaussian(), 4
    nothing = Split(inputs[:0], targets[:0])  # else the best epoch would be an early one
    network = partial(nn.Linear, n, n_outputs)
    return Problem(Split(inputs, targets), nothing, likelihood, network, epochs, n)


# The objective


def close_to_mean(actual: torch.Tensor, draws: torch.Tensor) -> bool:
    """Within 4.5 standard errors of the mean of draws along the first dimension."""
    error = draws.std(0) / math.sqrt(len(draws))
    return bool(((actual - draws.mean(0)).abs() < 4.5 * error).all())


def test_class_objective_is_the_teachers_expectation(rng):
    teacher, student = 2 * torch.randn(5, 4, 3, generator=rng), torch.randn(4, 3, generator=rng)
    likelihood = SoftCategorical(3)
    member = torch.randint(5, (N_DRAWS,), generator=rng)
    probs = teacher.softmax(-1)[member].view(-1, 3)
    classes = torch.multinomial(probs, 1, generator=rng).view(-1, 4)
    log_probs = Categorical(3).log_prob(student.expand(N_DRAWS, 4, 3), classes)
    expected = likelihood.log_prob(student, likelihood.summary(teacher))
    assert close_to_mean(expected, log_probs)


def test_gaussian_objective_is_the_teachers_expectation(rng):
    teacher, student = torch.randn(5, 4, 6, generator=rng), torch.randn(4, 6, generator=rng)
    likelihood = SoftGaussian()
    mean, sd = likelihood.split(teacher[torch.randint(5, (N_DRAWS,), generator=rng)])
    values = mean + sd * torch.randn(N_DRAWS, 4, 3, generator=rng)
    log_probs = Gaussian().log_prob(student.expand(N_DRAWS, 4, 6), values)
    expected = likelihood.log_prob(student, likelihood.summary(teacher))
    assert close_to_mean(expected, log_probs)


def test_observed_targets_are_scored_as_ever(rng):
    outputs = torch.randn(5, 4, 6, generator=rng)
    classes, values = torch.randint(6, (4,), generator=rng), torch.randn(4, 3, generator=rng)
    for soft, plain, targets in (
        (SoftCategorical(6), Categorical(6), classes),
        (SoftGaussian(), Gaussian(), values),
    ):
        assert torch.equal(soft.log_prob(outputs, targets), plain.log_prob(outputs, targets))
        assert soft.scores(outputs, targets) == plain.scores(outputs, targets)


# The student


def test_flexible_student_has_the_teachers_probabilities():
    problem = table("classification", n=6, epochs=300)
    distilled = fit(pair(learning_rate=0.1, lr_decay=True), problem)
    taught = draw(distilled.teacher, problem.train.inputs, n_samples=2).softmax(-1)
    learned = draw(distilled, problem.train.inputs, n_samples=1).softmax(-1)
    assert (taught[0] - taught[1]).abs().max() > 0.05, "the teacher's members must differ"
    torch.testing.assert_close(learned[0], taught.mean(0), rtol=0, atol=2e-3)


def test_flexible_student_has_the_teachers_moments():
    problem = table("regression", n=4, epochs=400)
    distilled = fit(pair(learning_rate=0.1, lr_decay=True), problem)
    mean, sd = Gaussian().split(draw(distilled.teacher, problem.train.inputs, n_samples=2))
    variance = sd.square().mean(0) + (mean[0] - mean[1]).square() / 4
    learned_mean, learned_sd = Gaussian().split(draw(distilled, problem.train.inputs)[0])
    torch.testing.assert_close(learned_mean, mean.mean(0), rtol=0, atol=5e-3)
    torch.testing.assert_close(learned_sd, variance.sqrt(), rtol=0.01, atol=0)


def test_the_teacher_is_fitted_as_it_is_alone():
    problem = make_problem("classification")
    teacher = fit(pair(), problem).teacher
    alone = fit(DeepEnsemble(n_members=2), problem)
    inputs = problem.validation.inputs
    assert torch.equal(draw(teacher, inputs), draw(alone, inputs))


def test_the_best_epoch_is_that_of_the_validation_targets():
    problem = make_problem("classification", epochs=20)
    swapped = replace(problem.validation, targets=(problem.validation.targets + 1) % 3)
    fits = [
        fit(pair(teacher_settings="n_members: 1", learning_rate=0.05), one, seed=4)
        for one in (problem, replace(problem, validation=swapped))
    ]
    gains = [
        problem.likelihood.log_prob(
            draw(one.student, problem.validation.inputs, n_samples=1)[0],
            problem.validation.targets,
        ).mean()
        for one in fits
    ]
    assert gains[0] > gains[1] + 0.1  # wrong targets choose an early epoch


def test_targets_do_not_depend_on_how_examples_are_cut(monkeypatch):
    problem = make_problem("classification")
    whole = draw(fit(Distilled(), problem), problem.validation.inputs)
    monkeypatch.setattr("bhnbench_methods.distilled._N_ROWS", 7)
    in_parts = draw(fit(Distilled(), problem), problem.validation.inputs)
    torch.testing.assert_close(in_parts, whole, rtol=1e-4, atol=1e-5)


# Reports


def test_student_goes_on_where_the_teacher_stopped():
    problem, listener = make_problem("classification", epochs=3), Listener()
    fit(pair(), problem, listener=listener)
    assert [step for step, _ in listener.points] == [1, 2, 3, 4, 5, 6]
    for step, metrics in listener.points:
        assert ("teacher_nll" in metrics, "nll" in metrics) == (step <= 3, step > 3)


@pytest.mark.parametrize("stop_at", [2, 5])
def test_either_fit_can_be_ended(stop_at):
    listener = Listener(stop_at=stop_at)
    with pytest.raises(StopRunError):
        fit(pair(), make_problem("classification", epochs=3), listener=listener)
    assert len(listener.points) == stop_at


# Naming the teacher


def test_settings_reach_the_teacher():
    text = "rate: 1e-3, lr_decay: true, weight_decay: 2"
    teacher = Distilled(teacher_settings=text).make_teacher()
    assert (teacher.rate, teacher.lr_decay, teacher.weight_decay) == (0.001, True, 2.0)
    quoted = Distilled(teacher="bayesian_hypernet", teacher_settings="flow: 'iaf', width: 16")
    assert (quoted.make_teacher().flow, quoted.make_teacher().width) == ("iaf", 16)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"teacher": "mc_dropot"},
            r"teacher: no method 'mc_dropot' .*did you mean 'mc_dropout'\?",
        ),
        ({"teacher": "distilled"}, "teacher: must not be distilled itself"),
        ({"teacher_settings": "rat: 1"}, r"mc_dropout has no field 'rat'; did you mean 'rate'\?"),
        ({"teacher_settings": "rate: 2"}, r"rate must be in \[0, 0.99\], but got 2"),
        ({"teacher_settings": "rate: yes"}, "rate must be a number, but got 'yes'"),
        ({"teacher_settings": "rate: 0.1, rate: 0.2"}, "'rate' stands twice"),
        ({"teacher_settings": "rate: [0.1]"}, "must be like"),
        ({"teacher_settings": "rate: 0.1}"}, "must be like"),
        ({"teacher_settings": "- rate"}, "must be like"),
    ],
)
def test_a_wrong_teacher_is_refused_in_one_line(settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        Distilled(**settings)
    assert "\n" not in str(caught.value)


def test_a_sweep_names_the_line_of_a_wrong_teacher(tmp_path):
    path = tmp_path / "sweep.yaml"
    lines = ["name: taught", "tasks: [toy_regression]", "methods:", "- name: distilled"]
    lines += ["  teacher_settings: 'rat: 0.1'", "evaluate: {seeds: 1}"]
    path.write_text("\n".join(lines))
    with pytest.raises(InvalidSweepError, match=r"sweep.yaml:5: .*did you mean 'rate'\?"):
        read_sweep(path)


def test_version_is_the_teachers_too(monkeypatch):
    before = Distilled().version
    monkeypatch.setattr("bhnbench_methods.mc_dropout.MCDropout.version", "other")
    assert Distilled().version not in (before, Distilled.version)


def test_what_the_teacher_cannot_do_neither_can_the_student():
    problem = replace(make_problem("classification"), network=partial(nn.Linear, 2, 3))
    reason = Distilled().supports(problem)
    assert reason is not None
    assert reason.startswith("its teacher mc_dropout: it needs at least two")


def test_other_likelihoods_are_refused():
    problem = replace(make_problem("classification"), likelihood=SoftCategorical(3))
    expected = "it needs a Categorical or Gaussian likelihood, but the problem has SoftCategorical"
    assert Distilled().supports(problem) == expected


def test_warm_start_must_be_distilled():
    problem = make_problem("classification")
    other = fit(MaximumLikelihood(), problem)
    with pytest.raises(ContractError, match="what an earlier fit of this method returned"):
        pair().fit(problem, rng=fit_rng(1), report=Listener(), warm_start=other)
