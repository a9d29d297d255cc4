"""A model run on two examples before it is trained: whether the network bears what it must."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from bhnbench.contract import Problem
from bhnbench.errors import BhnbenchError, ContractError, UnsupportedError
from bhnbench_methods.layers import evaluating
from bhnbench_methods.minibatches import batch_sizes
from bhnbench_methods.models import Model
from bhnbench_methods.streams import seeded


def check_trainable(model: Model) -> None:
    """Something in it can be trained.

    Raises:
        UnsupportedError: nothing.
    """
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UnsupportedError(
            "it needs a parameter to train, but the network has none that is not frozen; "
            "call requires_grad_(True) on one"
        )


def rehearse(model: Model, problem: Problem) -> None:
    """Run a model that nobody needs any more as training and prediction will.

    Raises:
        UnsupportedError: the method cannot do with the network what it must.
        ContractError: the network cannot take the problem's inputs.
    """
    inputs = _two_rows(problem)
    rng = torch.Generator(inputs.device).manual_seed(0)
    with torch.no_grad(), seeded(0, inputs.device), network_explained(problem):
        model.train()(inputs, model.draw_noise(inputs, rng))
        if 1 in batch_sizes(len(problem.train), problem.batch_size):
            model(inputs[:1], model.draw_noise(inputs[:1], rng))  # batch normalisation cannot
    predict(model, problem)


def predict(model: Model, problem: Problem) -> torch.Tensor:
    """One sample of the outputs for two examples; the model stays as it is.

    Raises:
        UnsupportedError: the method cannot do with the network what it must.
        ContractError: the network cannot take the problem's inputs.
    """
    inputs = _two_rows(problem)
    with torch.no_grad(), evaluating(model), seeded(0, inputs.device), network_explained(problem):
        return model.sample(inputs, 1, rng=torch.Generator().manual_seed(0))


def _two_rows(problem: Problem) -> torch.Tensor:
    """The first and the last input, equal if there is one: batch normalisation needs two."""
    return problem.train.inputs[[0, -1]]


@contextmanager
def network_explained(problem: Problem) -> Iterator[None]:
    """Say what the network was given where it fails.

    Raises:
        ContractError: the network, or a method's copy of it, cannot take the problem's inputs.
    """
    try:
        yield
    except (BhnbenchError, torch.OutOfMemoryError):
        raise
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
        inputs = problem.train.inputs
        got = f"rows of shape {tuple(inputs.shape[1:])}, {inputs.dtype}"
        fix = "" if inputs.is_floating_point() else "; try inputs.float()"
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ContractError(
            f"the network must run on the problem's inputs, but on {got}, it fails ({reason}){fix}"
        ) from error
