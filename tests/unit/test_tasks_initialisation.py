"""Restarts of active learning from the same initialisation."""

from __future__ import annotations

import pickle

import torch
from bhnbench_doubles.fits import Fit, Guess, run_task

from bhnbench.seeds import make_rng
from bhnbench_methods.maximum_likelihood import MaximumLikelihood
from bhnbench_tasks.active_learning import ActiveLearning


def problems(restart, *, seed=1, **settings):
    """Of four rounds."""
    fit = Fit(lambda problem: Guess())
    task = ActiveLearning(n_rounds=3, n_samples=2, restart=restart, **settings)
    run_task(task, fit, seed=seed)
    return fit.problems


def initial_weights(restart, seed=1):
    """Of the networks of all rounds, made while torch's global stream stands elsewhere."""
    made = []
    for global_seed, problem in enumerate(problems(restart, seed=seed)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(global_seed)
            before = torch.get_rng_state()
            network = pickle.loads(pickle.dumps(problem.network))()
            moved = not torch.equal(before, torch.get_rng_state())
        assert moved == (restart != "deterministic")
        made.append(torch.nn.utils.parameters_to_vector(network.parameters()).detach())
    return made


def test_deterministic_restarts_are_from_the_same_weights():
    """In all rounds, by whatever stream a method makes its network; other ones with each seed."""
    first, *others = initial_weights("deterministic")
    assert all(torch.equal(first, other) for other in others)
    assert not torch.equal(first, initial_weights("deterministic", seed=2)[0])
    first, *others = initial_weights("fresh")
    assert not any(torch.equal(first, other) for other in others)


def test_a_method_starts_where_the_task_says():
    """After an epoch of tiny steps, its fits have the same outputs, with any random stream."""
    outputs = {}
    for restart in ("deterministic", "fresh"):
        found = [
            MaximumLikelihood(learning_rate=1e-7)
            .fit(problem, rng=make_rng(fit=i), report=lambda *_: None)
            .sample(problem.train.inputs[:20], 1, rng=make_rng())
            for i, problem in enumerate(problems(restart, epochs=1))
        ]
        outputs[restart] = torch.stack(found).detach()
    assert outputs["deterministic"].std(0).max() < 1e-4
    assert outputs["fresh"].std(0).max() > 0.1
