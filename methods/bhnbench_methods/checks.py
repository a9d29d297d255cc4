"""What a problem must be for any method: its data, its budget, and what its network returns."""

from __future__ import annotations

import torch

from bhnbench.contract import Problem, Split
from bhnbench.errors import ContractError
from bhnbench.likelihoods import Categorical, Gaussian


def check_data(problem: Problem) -> None:
    """Look at shapes, types and the budget, and at class numbers; cheap, whatever the size.

    Raises:
        ContractError: one of them is wrong.
    """
    train, validation = problem.train, problem.validation
    for name, value in (("epochs", problem.epochs), ("batch_size", problem.batch_size)):
        if value < 1:
            raise ContractError(f"{name} must be at least 1, but got {value}")
    _check_split(problem, "train", train)
    if not len(train):
        raise ContractError("train must hold an example, but is empty")
    if not isinstance(validation.inputs, torch.Tensor) or len(validation):
        _check_split(problem, "validation", validation)
        ours, theirs = (s.inputs.shape[1:] for s in (train, validation))
        if ours != theirs or train.inputs.dtype != validation.inputs.dtype:
            raise ContractError(
                "validation.inputs must be like train.inputs, but got rows of shape "
                f"{tuple(theirs)}, {validation.inputs.dtype}, and {tuple(ours)}, "
                f"{train.inputs.dtype}"
            )


def _check_split(problem: Problem, name: str, split: Split) -> None:
    for part, value in (("inputs", split.inputs), ("targets", split.targets)):
        if not isinstance(value, torch.Tensor):
            raise ContractError(
                f"{name}.{part} must be a torch.Tensor, but got a {type(value).__name__}; "
                "use torch.from_numpy or torch.as_tensor"
            )
    if len(split.inputs) != len(split.targets):
        raise ContractError(
            f"{name} must hold a target for each input, but got {len(split.inputs)} inputs and "
            f"{len(split.targets)} targets"
        )
    likelihood = problem.likelihood  # of another, such as a user's own, nothing is known
    if type(likelihood) is Categorical and len(split):
        _check_classes(f"{name}.targets", split.targets, likelihood.n_classes)
    if type(likelihood) is Gaussian:
        _check_values(f"{name}.targets", split.targets)


def _check_classes(name: str, targets: torch.Tensor, n_classes: int) -> None:
    if targets.ndim != 1:
        raise ContractError(
            f"{name} of shape (n,) must hold for Categorical, but got {tuple(targets.shape)}; "
            "use targets.squeeze(1), or targets.argmax(1) where they are one-hot"
        )
    if targets.dtype != torch.int64:
        raise ContractError(
            f"{name} must be int64 for Categorical, but got {targets.dtype}; use targets.long()"
        )
    low, high = (int(end) for end in targets.aminmax())
    if low < 0 or high >= n_classes:
        raise ContractError(
            f"{name} must be classes from 0 to {n_classes - 1} for Categorical({n_classes}), but "
            f"go from {low} to {high}; number the classes from 0"
        )


def _check_values(name: str, targets: torch.Tensor) -> None:
    if targets.ndim != 2:
        fix = "targets[:, None]" if targets.ndim == 1 else "targets.flatten(1)"
        raise ContractError(
            f"{name} of shape (n, d) must hold for Gaussian, but got {tuple(targets.shape)}; "
            f"use {fix}"
        )
    if not targets.is_floating_point():
        raise ContractError(
            f"{name} must be floating-point for Gaussian, but got {targets.dtype}; "
            "use targets.float()"
        )


def check_finite(problem: Problem) -> None:
    """Look at every number of the data.

    Raises:
        ContractError: one is not finite.
    """
    for name, split in (("train", problem.train), ("validation", problem.validation)):
        for part, tensor in (("inputs", split.inputs), ("targets", split.targets)):
            # The sum takes one pass and no memory; it may overflow where no number is infinite.
            if not tensor.sum().isfinite() and not tensor.isfinite().all():
                n_bad = int((~tensor.isfinite()).sum())
                raise ContractError(
                    f"{name}.{part} must be finite, but {n_bad} of {tensor.numel()} numbers are "
                    "not; leave out these examples, or impute them"
                )


def check_outputs(problem: Problem, outputs: torch.Tensor) -> None:
    """Look at the shape of a network's outputs.

    Args:
        problem: with data that ``check_data`` has seen.
        outputs: of the network for some examples, ``(..., n, n_outputs)``.

    Raises:
        ContractError: the likelihood cannot read them.
    """
    likelihood = problem.likelihood
    if type(likelihood) is Categorical:
        rule, n_expected = "(n, n_classes)", likelihood.n_classes
    elif type(likelihood) is Gaussian:
        rule, n_expected = "(n, 2 d)", 2 * problem.train.targets.shape[1]
    else:
        return
    if outputs.shape[-1] != n_expected:
        raise ContractError(
            f"the network's outputs {rule} must have {n_expected} columns for {likelihood}, but "
            f"have {outputs.shape[-1]}; change its last layer"
        )
