"""Which epoch a fit with annealing returns: one of the ELBO, however good those before were."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch

from bhnbench.contract import Predictive, Problem, Split
from bhnbench.testing.problems import make_problem
from bhnbench_methods.bayes_by_backprop import BayesByBackprop
from bhnbench_methods.bayes_by_hypernet import BayesByHypernet
from bhnbench_methods.bayesian_hypernet import BayesianHypernet
from bhnbench_methods.multiplicative_normalizing_flow import MultiplicativeNormalizingFlow
from bhnbench_methods.variational_dropout import VariationalDropout
from bhnbench_methods.variational_method import VariationalMethod


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def lies_to_learn(epochs: int) -> Problem:
    """Labels are those of another class in training: nearly every epoch is worse than the last."""
    problem = make_problem("classification", n=24, epochs=epochs, dtype=torch.float64)
    wrong = (problem.train.targets + 1) % 3
    return replace(problem, train=Split(problem.train.inputs, wrong))


def score(fitted: Predictive, problem: Problem) -> float:
    """As training validates, with the same random numbers."""
    outputs = fitted.sample(problem.validation.inputs, 10, rng=rng(0))
    return -problem.likelihood.scores(outputs, problem.validation.targets)["nll"]


METHODS = {
    "bayes_by_backprop": BayesByBackprop(kl_annealing=True),
    "bayes_by_hypernet": BayesByHypernet(kl_annealing=True),
    "multiplicative_normalizing_flow": MultiplicativeNormalizingFlow(kl_annealing=True, width=8),
    "variational_dropout": VariationalDropout(kl_annealing=True),
    "bayesian_hypernet": BayesianHypernet(kl_annealing=True, width=8),
    "likelihood_annealing": BayesianHypernet(likelihood_annealing=True, width=8),
    "both": BayesianHypernet(kl_annealing=True, likelihood_annealing=True, width=8),
}


@pytest.mark.parametrize("n_replicas", [1, 2])
@pytest.mark.parametrize("name", METHODS)
def test_the_epoch_kept_is_the_best_one_of_full_weight(name: str, n_replicas: int) -> None:
    """Earlier epochs, of which one is the best of all, are passed over; so for each replica."""
    problem = lies_to_learn(epochs=20)
    method: VariationalMethod = replace(METHODS[name], learning_rate=0.03)
    heard: list[list[Mapping[str, float]]] = [[] for _ in range(n_replicas)]
    fits = method.fit_many(
        [problem] * n_replicas,
        rngs=[rng(seed) for seed in range(n_replicas)],
        reports=[lambda step, metrics, log=log: log.append(metrics) for log in heard],
        warm_starts=[None] * n_replicas,
    )
    for fitted, log in zip(fits, heard, strict=True):
        scores = [-metrics["nll"] for metrics in log]
        whole = [x for x, m in zip(scores, log, strict=True) if m["kl_weight"] == 1]
        assert 1 < len(whole) < len(scores) == 20
        assert max(scores) > max(whole) + 1e-3  # or there was nothing to pass over
        assert score(fitted, problem) == pytest.approx(max(whole), abs=1e-9)


@pytest.mark.parametrize("name", METHODS)
def test_without_annealing_the_best_epoch_of_all_is_kept(name: str) -> None:
    problem = lies_to_learn(epochs=20)
    plain = {"kl_annealing": False}
    if name in ("likelihood_annealing", "both"):
        plain["likelihood_annealing"] = False
    method: VariationalMethod = replace(METHODS[name], learning_rate=0.03, **plain)
    scores: list[float] = []
    fitted = method.fit(
        problem, rng=rng(), report=lambda _, metrics: scores.append(-metrics["nll"])
    )
    assert scores.index(max(scores)) < 10
    assert score(fitted, problem) == pytest.approx(max(scores), abs=1e-9)
