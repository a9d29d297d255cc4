"""Bit-for-bit comparison of tensors, problems and outcomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from bhnbench.contract import Outcome, Problem, Split
from bhnbench.testing.state import other_globals

Content = Mapping[str, object]


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors hold the same numbers in the same type; nan equals nan."""
    return a.dtype == b.dtype and a.shape == b.shape and raw(a) == raw(b)


def raw(tensor: torch.Tensor) -> bytes:
    """The content of a tensor."""
    return bytes(tensor.detach().cpu().contiguous().numpy().tobytes())


def gap(a: torch.Tensor, b: torch.Tensor) -> str:
    """How two tensors differ, in words."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return f"one is {tuple(a.shape)} {a.dtype}, the other {tuple(b.shape)} {b.dtype}"
    largest = (a.detach().double() - b.detach().double()).abs().max().item()
    return f"they differ by up to {largest:g}"


def rows_of(inputs: torch.Tensor) -> set[bytes]:
    """The examples of a batch, each by its content."""
    if len(inputs) == 0:
        return set()
    array = inputs.detach().cpu().contiguous().flatten(1).numpy()
    return {row.tobytes() for row in array}


def copy_of(problem: Problem) -> Problem:
    """The problem with tensors of its own, to be compared after someone had hold of it."""

    def copied(split: Split) -> Split:
        return Split(split.inputs.detach().clone(), split.targets.detach().clone())

    return replace(problem, train=copied(problem.train), validation=copied(problem.validation))


def tensors_of(problem: Problem) -> dict[str, torch.Tensor]:
    """The data of a problem, by name."""
    return {
        "train.inputs": problem.train.inputs,
        "train.targets": problem.train.targets,
        "validation.inputs": problem.validation.inputs,
        "validation.targets": problem.validation.targets,
    }


def content_of_problem(problem: Problem) -> Content:
    """Everything that a method can see of a problem."""
    with other_globals(0):
        network = {name: raw(tensor) for name, tensor in problem.network().state_dict().items()}
    tensors = {
        name: (tensor.dtype, tuple(tensor.shape), raw(tensor))
        for name, tensor in tensors_of(problem).items()
    }
    return tensors | {
        "likelihood": problem.likelihood,
        "network": network,
        "epochs": problem.epochs,
        "batch_size": problem.batch_size,
    }


def content_of_outcome(outcome: Outcome) -> Content:
    """Everything that a run found."""
    columns = {
        f"tables.{table}.{column}": np.asarray(values).tobytes()
        for table, content in outcome.tables.items()
        for column, values in content.items()
    }
    scores = {f"scores.{name}": repr(float(value)) for name, value in outcome.scores.items()}
    return scores | columns


def differences(a: Content, b: Content) -> list[str]:
    """Names under which two contents differ."""
    return sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))
