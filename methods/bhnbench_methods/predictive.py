"""Sampling a network's outputs: batched over samples, in chunks that bound the memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch.func import vmap

from bhnbench.errors import ContractError
from bhnbench_methods.checks import check_count, check_tensor

MAX_ACTIVATIONS = 2**22  # numbers alive at once in one chunk: 16 MiB in float32
MAX_DRAWN = 2**22  # random numbers drawn at once; another value gives other samples
_FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
N_TOGETHER = 8  # samples in a chunk: enough to make what they share cheap

# The random part of them.
Weights = TypeVar("Weights", torch.Tensor, dict[str, torch.Tensor])
Draw = Callable[[int], Weights]
"""``draw(k)``: the next k samples of the random part of the weights, samples first."""


def normals(n: int, size: int, rng: torch.Generator, *, like: torch.Tensor) -> torch.Tensor:
    """Standard normals ``(n, size)`` from ``rng`` on the CPU: the same on every device."""
    return torch.randn(n, size, generator=rng, dtype=like.dtype).to(like.device)


def sample_outputs(
    run: Callable[[torch.Tensor, Weights], torch.Tensor],
    inputs: torch.Tensor,
    draw: Draw[Weights],
    n_samples: int,
    *,
    n_random: int,
    n_activations: int,
) -> torch.Tensor:
    """``run(inputs, w)`` for ``n_samples`` draws ``w``: ``(n_samples, n, n_outputs)``.

    What does not depend on ``w`` is computed once for all samples of a chunk. What is drawn does
    not depend on the inputs, so that a sample is one function.

    A network that ``vmap`` cannot run, such as one with ``if h.max() > 1``, runs sample by
    sample, which is slower: the first chunk decides for all of them.

    Args:
        run: the network, given one sample of the random part of its weights.
        inputs: ``(n, *input_shape)``.
        draw: gives the next samples; called in order.
        n_samples: how many.
        n_random: numbers in one draw.
        n_activations: numbers that ``run`` computes for one example.

    Raises:
        ContractError: ``n_samples`` is not positive, or the inputs are of another type than those
            of training.
    """
    _check(inputs, n_samples)
    n_rows = max(MAX_ACTIVATIONS // n_activations, 1)
    n_block = max(MAX_DRAWN // max(n_random, 1), 1)
    # Few samples a chunk where their weights are large, so that many inputs meet each of them.
    n_inputs = max(n_rows // min(n_samples, n_block, N_TOGETHER), 1)
    n_inputs = min(n_inputs, max(len(inputs), 1))
    batched = _over_samples(run, max(n_rows // n_inputs, 1))
    outputs = []
    for n_drawn in _blocks(n_samples, n_block):
        weights = draw(n_drawn)
        chunks = [batched(chunk, weights) for chunk in _chunks(inputs, n_inputs)]
        outputs.append(torch.cat(chunks, dim=1))
    return torch.cat(outputs) if len(outputs) > 1 else outputs[0]


def repeat_outputs(
    run: Callable[[torch.Tensor], torch.Tensor],
    inputs: torch.Tensor,
    n_samples: int,
    *,
    n_activations: int,
) -> torch.Tensor:
    """``run(inputs)``, computed once in chunks, as ``n_samples`` equal samples.

    Raises:
        ContractError: as ``sample_outputs`` does.
    """
    _check(inputs, n_samples)
    chunks = _chunks(inputs, max(MAX_ACTIVATIONS // n_activations, 1))
    outputs = torch.cat([_run(run, chunk) for chunk in chunks])
    return outputs.expand(n_samples, *outputs.shape)


def _check(inputs: torch.Tensor, n_samples: int) -> None:
    check_tensor("inputs", inputs)
    check_count("n_samples", n_samples)


def _over_samples(
    run: Callable[[torch.Tensor, Weights], torch.Tensor], chunk_size: int
) -> Callable[[torch.Tensor, Weights], torch.Tensor]:
    """``run`` for many samples of the weights: together or, where that fails, one by one."""
    together = vmap(run, in_dims=(None, 0), chunk_size=chunk_size)
    is_vmapped = True

    def batched(inputs: torch.Tensor, weights: Weights) -> torch.Tensor:
        nonlocal is_vmapped
        if is_vmapped:
            try:
                return together(inputs, weights)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError:  # where it is not vmap's, it comes again
                is_vmapped = False
        samples = _unstack(weights)
        return torch.stack([_run(run, inputs, sample) for sample in samples])

    return batched


def _run(run: Callable[..., torch.Tensor], inputs: torch.Tensor, *weights: object) -> torch.Tensor:
    """``run(inputs, *weights)``; where it fails for the type of the inputs alone, say so."""
    try:
        return run(inputs, *weights)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        types = (inputs.dtype, *_FLOATS)
        wanted = next((t for t in types if _runs(run, inputs[:1].to(t), *weights)), None)
        if wanted in (None, inputs.dtype):
            raise
        raise ContractError(
            f"inputs must be {wanted}, as in training, but got {inputs.dtype}; use "
            f"inputs.to({wanted})"
        ) from error


def _runs(run: Callable[..., torch.Tensor], *args: object) -> bool:
    try:
        run(*args)
    except RuntimeError:
        return False
    return True


def _unstack(weights: Weights) -> Iterator[Weights]:
    if isinstance(weights, torch.Tensor):
        yield from weights
    else:
        for values in zip(*weights.values(), strict=True):
            yield dict(zip(weights, values, strict=True))


def _blocks(n: int, size: int) -> Iterator[int]:
    return (min(size, n - start) for start in range(0, n, size))


def _chunks(inputs: torch.Tensor, size: int) -> list[torch.Tensor]:
    return [inputs[start : start + size] for start in range(0, max(len(inputs), 1), size)]
