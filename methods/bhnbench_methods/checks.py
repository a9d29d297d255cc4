"""What a problem must be for any method: its data, its budget, and what its network returns."""

from __future__ import annotations

import operator
from weakref import WeakSet

import torch

from bhnbench.contract import Problem, Split
from bhnbench.errors import ContractError
from bhnbench.likelihoods import Categorical, Gaussian

_MADE: WeakSet[torch.nn.Module] = WeakSet()  # by networks' functions, and still alive


def check_call(problem: object, rng: object, report: object) -> None:
    """Look at the kinds of what ``fit`` is given.

    Raises:
        ContractError: one of them is wrong.
    """
    if not isinstance(problem, Problem):
        raise ContractError(
            f"problem must be a bhnbench.contract.Problem, but got {kind_of(problem)}"
        )
    check_rng(rng)
    if not callable(report):
        raise ContractError(
            f"report must be a function, but got {kind_of(report)}; to hear nothing, give "
            "lambda step, figures: None"
        )


def check_rng(rng: object) -> None:
    """Random numbers can be drawn from it, and are the same on every device.

    Raises:
        ContractError: it is no random stream of the CPU.
    """
    if not isinstance(rng, torch.Generator):
        raise ContractError(
            f"rng must be a torch.Generator, but got {kind_of(rng)}; use "
            "torch.Generator().manual_seed(0), or another seed"
        )
    if rng.device.type != "cpu":
        raise ContractError(
            f"rng must be a torch.Generator of the CPU, but got one of {rng.device}; use "
            "torch.Generator() without a device"
        )


def check_made(network: object) -> None:
    """Look at what a problem's ``network()`` returned.

    Raises:
        ContractError: it is no module, or one that is in use already.
    """
    if not isinstance(network, torch.nn.Module):
        raise ContractError(
            f"network() must return a torch.nn.Module, but returned {kind_of(network)}"
        )
    if network in _MADE:
        raise ContractError(
            "network() must make a new torch.nn.Module in each call, but returned the same again; "
            "build it inside the function"
        )
    _MADE.add(network)


def check_problem(problem: Problem) -> None:
    """Look at shapes, types and the budget, and at class numbers; cheap, whatever the size.

    Raises:
        ContractError: one of them is wrong.
    """
    check_count("epochs", problem.epochs)
    check_count("batch_size", problem.batch_size)
    _check_network(problem.network)
    _check_likelihood(problem.likelihood)
    _check_split(problem, "train", problem.train)
    if not len(problem.train):
        raise ContractError("train must hold an example, but is empty")
    _check_split(problem, "validation", problem.validation)
    if len(problem.validation):
        _check_alike(problem)


def kind_of(value: object) -> str:
    """What a value is, for messages: "an int", "None" or "the class Linear"."""
    if value is None or isinstance(value, type):
        return "None" if value is None else f"the class {value.__name__}"
    name = type(value).__name__
    return f"an {name}" if name[0] in "aeiouAEIOU" else f"a {name}"


def _check_network(network: object) -> None:
    if isinstance(network, torch.nn.Module) or not callable(network):
        raise ContractError(
            "network must be a function that makes a torch.nn.Module, a new one in each call, but "
            f"got {kind_of(network)}; build it inside a function"
        )


def _check_likelihood(likelihood: object) -> None:
    verbs = (getattr(likelihood, name, None) for name in ("log_prob", "scores"))
    if isinstance(likelihood, type) or not all(map(callable, verbs)):
        raise ContractError(
            "likelihood must have log_prob and scores, as Categorical(10) and Gaussian() do, but "
            f"got {kind_of(likelihood)}"
        )
    if type(likelihood) is Categorical:
        check_count("n_classes of Categorical", likelihood.n_classes)


def _check_split(problem: Problem, name: str, split: object) -> None:
    if not isinstance(split, Split):
        fix = (
            "Split(inputs[:0], targets[:0]) for no data"
            if split is None
            else "Split(inputs, targets)"
        )
        raise ContractError(
            f"{name} must be a bhnbench.contract.Split, but got {kind_of(split)}; use {fix}"
        )
    _check_tensors(name, split)
    likelihood = problem.likelihood  # of another, such as a user's own, nothing is known
    if type(likelihood) is Categorical and len(split):
        _check_classes(f"{name}.targets", split.targets, likelihood.n_classes)
    if type(likelihood) is Gaussian and len(split):
        _check_values(f"{name}.targets", split.targets)


def _check_tensors(name: str, split: Split) -> None:
    for part, value in (("inputs", split.inputs), ("targets", split.targets)):
        check_tensor(f"{name}.{part}", value)
        if not value.ndim:
            raise ContractError(f"{name}.{part} must have a row an example, but got one number")
    if len(split.inputs) != len(split.targets):
        raise ContractError(
            f"{name} must hold a target for each input, but got {len(split.inputs)} inputs and "
            f"{len(split.targets)} targets"
        )


def check_tensor(name: str, value: object) -> None:
    """Refuse arrays and lists.

    Raises:
        ContractError: it is no tensor.
    """
    if not isinstance(value, torch.Tensor):
        raise ContractError(
            f"{name} must be a torch.Tensor, but got {kind_of(value)}; "
            "use torch.from_numpy or torch.as_tensor"
        )


def check_count(name: str, value: object) -> None:
    """Refuse what is no whole number, or below 1.

    Raises:
        ContractError: it is.
    """
    try:
        count = operator.index(value)  # type: ignore[arg-type]  # what is no number is told
    except TypeError:
        raise ContractError(f"{name} must be a whole number, but got {value!r}") from None
    if count < 1:
        raise ContractError(f"{name} must be at least 1, but got {count}")


def _check_alike(problem: Problem) -> None:
    """Rows of validation data must be like those of training data."""
    train, validation = problem.train, problem.validation
    ours, theirs = (s.inputs.shape[1:] for s in (train, validation))
    if ours != theirs or train.inputs.dtype != validation.inputs.dtype:
        raise ContractError(
            f"validation.inputs must be like train.inputs, but got rows of shape {tuple(theirs)}, "
            f"{validation.inputs.dtype}, and {tuple(ours)}, {train.inputs.dtype}"
        )
    ours, theirs = (s.targets.shape[1:] for s in (train, validation))
    if type(problem.likelihood) is Gaussian and ours != theirs:
        raise ContractError(
            "validation.targets must be like train.targets, but got rows of shape "
            f"{tuple(theirs)} and {tuple(ours)}"
        )


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
        problem: with data that ``check_problem`` has seen.
        outputs: one sample of them for two examples, ``(1, 2, n_outputs)``.

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
    if outputs.shape[:-1] != (1, 2):
        fix = "; use inputs[:, None]" if problem.train.inputs.ndim == 1 else ""
        raise ContractError(
            f"the network's outputs must be {rule}, a row an example, but of two examples have "
            f"the shape {tuple(outputs.shape[1:])}{fix}"
        )
    if outputs.shape[-1] != n_expected:
        raise ContractError(
            f"the network's outputs {rule} must have {n_expected} columns for {likelihood}, but "
            f"have {outputs.shape[-1]}; change its last layer"
        )
