"""Models to train, and what a training takes beside them."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from bhnbench.contract import Problem
from bhnbench_methods.bayesian_hypernet import BayesianHypernet, _HypernetModel
from bhnbench_methods.mc_dropout import MCDropout
from bhnbench_methods.models import Model, PointModel
from bhnbench_methods.streams import Streams
from bhnbench_methods.training import Recipe

CPU = torch.device("cpu")


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def streams(seed: int = 0) -> Streams:
    return Streams.draw(rng(seed), CPU)


def silent(step: int, metrics: Mapping[str, float]) -> None:
    """Report to nobody."""


def recipe(**options: float) -> Recipe:
    return Recipe(**{"learning_rate": 1e-2} | options)  # type: ignore[arg-type]


def point(problem: Problem) -> Model:
    return PointModel(problem, weight_decay=0.7)


def dropout(problem: Problem) -> Model:
    return MCDropout(rate=0.4, weight_decay=0.7).make_model(problem)


def hypernet(problem: Problem) -> Model:
    return _HypernetModel(problem, BayesianHypernet(width=8, initial_sd=0.5))
