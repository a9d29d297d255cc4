"""Tiny problems on which a method shows that it keeps the laws."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import nn

from bhnbench.contract import Likelihood, Predictive, Problem, Split
from bhnbench.likelihoods import Categorical, Gaussian
from bhnbench.seeds import make_rng

KINDS = ("classification", "regression", "images")
N_CLASSES = 3
N_OUTPUTS = {"classification": N_CLASSES, "regression": 2, "images": 2}


def make_problem(
    kind: str,
    *,
    seed: int = 0,
    n: int = 48,
    epochs: int = 3,
    batch_size: int = 16,
    dtype: torch.dtype = torch.float32,
) -> Problem:
    """A problem of one of ``KINDS``; activations are smooth, so that gradients can be checked."""
    draw = {"classification": _draw_blobs, "regression": _draw_line, "images": _draw_images}[kind]
    network = {
        "classification": partial(small_mlp, 2, N_CLASSES, dtype),
        "regression": partial(small_mlp, 1, 2, dtype),
        "images": partial(small_convnet, dtype),
    }[kind]
    likelihood: Likelihood = Gaussian() if kind == "regression" else Categorical(N_OUTPUTS[kind])
    train, validation = (
        draw(n_rows, make_rng(problem=kind, split=split, seed=seed), dtype)
        for split, n_rows in (("train", n), ("validation", 24))
    )
    return Problem(train, validation, likelihood, network, epochs, batch_size)


def small_mlp(n_inputs: int, n_outputs: int, dtype: torch.dtype) -> nn.Module:
    """One hidden layer."""
    first = nn.Linear(n_inputs, 12, dtype=dtype)
    return nn.Sequential(first, nn.Tanh(), nn.Linear(12, n_outputs, dtype=dtype))


def small_convnet(dtype: torch.dtype) -> nn.Module:
    """LeNet's layers, with batch normalisation, on 6 x 6 images."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, dtype=dtype),
        nn.BatchNorm2d(4, dtype=dtype),
        nn.Tanh(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 2, dtype=dtype),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(6, 2, dtype=dtype),
    )


def _draw_blobs(n: int, rng: torch.Generator, dtype: torch.dtype) -> Split:
    """Three clouds around the corners of a triangle."""
    targets = torch.arange(n) % N_CLASSES
    angle = 2 * math.pi * targets / N_CLASSES
    centres = 2 * torch.stack([angle.cos(), angle.sin()], dim=1)
    noise = 0.5 * torch.randn(n, 2, generator=rng)
    return Split((centres + noise).to(dtype), targets)


def _draw_line(n: int, rng: torch.Generator, dtype: torch.dtype) -> Split:
    """A steep line with a little noise."""
    x, noise = torch.randn(2, n, 1, generator=rng)
    return Split(x.to(dtype), (1.5 * x + 0.2 * noise).to(dtype))


def _draw_images(n: int, rng: torch.Generator, dtype: torch.dtype) -> Split:
    """Images that are brighter on the left or on the right."""
    targets = torch.arange(n) % 2
    images = 0.5 * torch.randn(n, 1, 6, 6, generator=rng)
    images[targets == 0, :, :, :3] += 1
    images[targets == 1, :, :, 3:] += 1
    return Split(images.to(dtype), targets)


def log_likelihood(predictive: Predictive, problem: Problem) -> float:
    """Mean log density of the validation targets under 20 samples, nats."""
    rng = make_rng(stream="score")
    outputs = predictive.sample(problem.validation.inputs, 20, rng=rng).detach()
    log_probs = problem.likelihood.log_prob(outputs, problem.validation.targets)
    return float((log_probs.logsumexp(0) - math.log(20)).mean())


def baseline(problem: Problem) -> float:
    """What the best prediction that ignores the inputs would reach, nats."""
    if isinstance(problem.likelihood, Categorical):
        return -math.log(problem.likelihood.n_classes)  # the classes are balanced
    train, targets = problem.train.targets, problem.validation.targets
    sd = train.std()
    standardised = (targets - train.mean()) / sd
    return float((-0.5 * standardised.square() - sd.log() - 0.5 * math.log(2 * math.pi)).mean())
