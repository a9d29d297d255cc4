"""Sampling a network's outputs: batched over samples, in chunks that bound the memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.func import vmap

MAX_ACTIVATIONS = 2**22  # numbers alive at once in one chunk: 16 MiB in float32


def sample_outputs(
    run: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    inputs: torch.Tensor,
    weights: torch.Tensor,
    n_activations: int,
) -> torch.Tensor:
    """``run(inputs, w)`` for every row ``w`` of ``weights``: ``(n_samples, n, n_outputs)``.

    What does not depend on ``w`` is computed once for all rows of a chunk.

    Args:
        run: the network, given the random part of its weights.
        inputs: ``(n, *input_shape)``.
        weights: one posterior sample of the random part a row, ``(n_samples, k)``.
        n_activations: numbers that ``run`` computes for one example.
    """
    n_rows = max(MAX_ACTIVATIONS // n_activations, 1)
    n_inputs = min(n_rows, max(len(inputs), 1))
    n_samples = min(max(n_rows // n_inputs, 1), len(weights))
    batched = vmap(run, in_dims=(None, 0), chunk_size=n_samples)
    return torch.cat([batched(chunk, weights) for chunk in _chunks(inputs, n_inputs)], dim=1)


def map_inputs(
    run: Callable[[torch.Tensor], torch.Tensor], inputs: torch.Tensor, n_activations: int
) -> torch.Tensor:
    """``run(inputs)`` in chunks: ``(n, n_outputs)``."""
    chunks = _chunks(inputs, max(MAX_ACTIVATIONS // n_activations, 1))
    return torch.cat([run(chunk) for chunk in chunks])


def _chunks(inputs: torch.Tensor, size: int) -> list[torch.Tensor]:
    return [inputs[start : start + size] for start in range(0, max(len(inputs), 1), size)]
