"""What `fit` and `sample` are given by hand: a wrong kind of thing is told in one line."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from bhnbench.contract import Problem, Split
from bhnbench.errors import ContractError
from bhnbench.likelihoods import Categorical
from bhnbench.testing.problems import make_problem
from bhnbench_methods.bayes_by_backprop import BayesByBackprop
from bhnbench_methods.checks import check_rng
from bhnbench_methods.deep_ensemble import DeepEnsemble
from bhnbench_methods.distilled import Distilled
from bhnbench_methods.dropout import Dropout
from bhnbench_methods.fitting import TrainedMethod
from bhnbench_methods.maximum_likelihood import MaximumLikelihood
from bhnbench_methods.mc_dropout import MCDropout
from bhnbench_methods.sgld import SGLD

RANDOM = [MCDropout(), BayesByBackprop()]
PLAIN = [MaximumLikelihood(), Dropout(), DeepEnsemble(n_members=2), SGLD(n_kept=2)]
TAUGHT = Distilled(teacher="maximum_likelihood", n_teacher_samples=2)
CLASSES, VALUES = (make_problem(kind, epochs=1) for kind in ("classification", "regression"))
X, T, Y = CLASSES.train.inputs, CLASSES.train.targets, VALUES.train.targets


def named(methods: list[TrainedMethod]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("method", methods, ids=lambda m: type(m).__name__)


def fit(method: TrainedMethod, problem: Any = CLASSES, **arguments: Any) -> Any:
    rng = torch.Generator().manual_seed(0)
    return method.fit(problem, **{"rng": rng, "report": lambda *_: None, **arguments})


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"rng": 0}, "rng must be a torch.Generator, but got an int; "
         "use torch.Generator().manual_seed(0), or another seed"),
        ({"rng": None}, "rng must be a torch.Generator, but got None; "
         "use torch.Generator().manual_seed(0), or another seed"),
        ({"report": None}, "report must be a function, but got None; to hear nothing, give "
         "lambda step, figures: None"),
        ({"problem": None}, "problem must be a bhnbench.contract.Problem, but got None"),
        ({"problem": (X, T)}, "problem must be a bhnbench.contract.Problem, but got a tuple"),
    ],
)  # fmt: skip
@named([MaximumLikelihood(), TAUGHT])
def test_the_arguments_of_a_fit(
    method: TrainedMethod, arguments: dict[str, Any], line: str
) -> None:
    with pytest.raises(ContractError) as caught:
        fit(method, **arguments)
    assert str(caught.value) == line


def test_random_numbers_are_drawn_on_the_cpu() -> None:
    class Elsewhere(torch.Generator):
        device = torch.device("cuda:0")

    with pytest.raises(ContractError, match="of the CPU, but got one of cuda:0; use "):
        check_rng(Elsewhere())


def changed(problem: Problem, split: str = "train", **parts: Any) -> Problem:
    return replace(problem, **{split: replace(getattr(problem, split), **parts)})


def flat() -> Problem:
    one = Split(X[:, 0], T)
    return replace(CLASSES, train=one, validation=one)


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        (replace(CLASSES, network=CLASSES.network()), "network must be a function that makes a "
         "torch.nn.Module, a new one in each call, but got a Sequential; build it inside a "
         "function"),
        (replace(CLASSES, network=None), "network must be a function that makes a "
         "torch.nn.Module, a new one in each call, but got None; build it inside a function"),
        (replace(CLASSES, network=lambda: None),
         "network() must return a torch.nn.Module, but returned None"),
        (replace(CLASSES, likelihood=Categorical), "likelihood must have log_prob and scores, as "
         "Categorical(10) and Gaussian() do, but got the class Categorical"),
        (replace(CLASSES, likelihood="classes"), "likelihood must have log_prob and scores, as "
         "Categorical(10) and Gaussian() do, but got a str"),
        (replace(CLASSES, likelihood=Categorical("3")),
         "n_classes of Categorical must be a whole number, but got '3'"),
        (replace(CLASSES, epochs=1.5), "epochs must be a whole number, but got 1.5"),
        (replace(CLASSES, batch_size=None), "batch_size must be a whole number, but got None"),
        (replace(CLASSES, train=(X, T)),
         "train must be a bhnbench.contract.Split, but got a tuple; use Split(inputs, targets)"),
        (replace(CLASSES, validation=None), "validation must be a bhnbench.contract.Split, but "
         "got None; use Split(inputs[:0], targets[:0]) for no data"),
        (changed(CLASSES, inputs=X.sum()),
         "train.inputs must have a row an example, but got one number"),
        (changed(VALUES, "validation", targets=VALUES.validation.targets.repeat(1, 2)),
         "validation.targets must be like train.targets, but got rows of shape (2,) and (1,)"),
    ],
)  # fmt: skip
def test_the_kinds_of_a_problems_parts(problem: Problem, line: str) -> None:
    assert MaximumLikelihood().supports(problem) == line
    with pytest.raises(ContractError) as caught:
        fit(MaximumLikelihood(), problem)
    assert str(caught.value) == line


def test_outputs_have_a_row_an_example() -> None:
    """A Linear layer of two inputs takes two numbers for one example of two."""
    line = r"a row an example, but of two examples have the shape \(3,\); use inputs\[:, None\]"
    with pytest.raises(ContractError, match=line):
        fit(MaximumLikelihood(), flat())


@named([MaximumLikelihood(), DeepEnsemble(n_members=2)])
def test_a_network_is_made_anew_for_each_model(method: TrainedMethod) -> None:
    network = CLASSES.network()
    assert method.supports(replace(CLASSES, network=lambda: network)) is None
    with pytest.raises(ContractError, match=r"must make a new torch\.nn\.Module in each call"):
        fit(method, replace(CLASSES, network=lambda: network))


@named([*RANDOM, *PLAIN, TAUGHT])
def test_inputs_are_sampled_in_the_type_of_training(method: TrainedMethod) -> None:
    posterior, rng = fit(method), torch.Generator()
    line = (
        r"^inputs must be torch\.float32, as in training, but got torch\.float64; "
        r"use inputs\.to\(torch\.float32\)$"
    )
    with pytest.raises(ContractError, match=line):
        posterior.sample(X.double(), 3, rng=rng)
    with pytest.raises(ContractError, match=r"inputs must be a torch\.Tensor, but got a ndarray"):
        posterior.sample(X.numpy(), 3, rng=rng)
    with pytest.raises(RuntimeError, match="shape"):  # of torch, which knows the layer
        posterior.sample(X[:, :1], 3, rng=rng)


class Cast(nn.Module):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs.float()


@named([*RANDOM, *PLAIN])
def test_a_network_that_casts_its_inputs_takes_any(method: TrainedMethod) -> None:
    def network() -> nn.Module:
        return nn.Sequential(Cast(), nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 3))

    posterior = fit(method, replace(CLASSES, network=network))
    assert posterior.sample(X.double(), 3, rng=torch.Generator()).dtype == torch.float32


@named(RANDOM)
@pytest.mark.parametrize("rng", [0, None])
def test_random_samples_need_a_random_stream(method: TrainedMethod, rng: Any) -> None:
    with pytest.raises(ContractError, match=r"^rng must be a torch\.Generator, but got "):
        fit(method).sample(X, 3, rng=rng)
