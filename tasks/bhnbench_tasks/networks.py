"""Networks that the tasks hand to methods: ordinary torch modules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import nn


def mlp(n_inputs: int, hidden: Sequence[int], n_outputs: int) -> nn.Sequential:
    """Hidden layers of these many ReLU units: ``(n, n_inputs) -> (n, n_outputs)``."""
    sizes = [n_inputs, *hidden]
    layers: list[nn.Module] = []
    for width, next_width in pairwise(sizes):
        layers += [nn.Linear(width, next_width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], n_outputs))


def lenet_5(n_outputs: int) -> nn.Sequential:
    """LeNet-5 with the sizes of Caffe's, for 28x28 images: ``(n, 784) -> (n, n_outputs)``.

    Convolutions of 20 and 50 filters of 5x5 pixels, each followed by max-pooling of 2x2, then
    500 units. ReLU everywhere; Caffe's own has none after the convolutions.
    """
    return nn.Sequential(
        nn.Unflatten(1, (1, 28, 28)),
        nn.Conv2d(1, 20, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(50 * 4 * 4, 500),
        nn.ReLU(),
        nn.Linear(500, n_outputs),
    )


def cnn_32(n_outputs: int) -> nn.Sequential:
    """The network of the active-learning experiments, for 28x28 images: ``(n, 784) -> (n, k)``.

    Three convolutions of 32 filters of 4x4 pixels, max-pooling of 2x2 after the third, 128 units;
    Krueger et al. (2017), "Bayesian hypernetworks", figure 4, from their code.
    """
    return nn.Sequential(
        nn.Unflatten(1, (1, 28, 28)),
        nn.Conv2d(1, 32, 4),
        nn.ReLU(),
        nn.Conv2d(32, 32, 4),
        nn.ReLU(),
        nn.Conv2d(32, 32, 4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 9 * 9, 128),
        nn.ReLU(),
        nn.Linear(128, n_outputs),
    )


class Homoscedastic(nn.Module):
    """A regression network with one learned noise scale for all inputs.

    Outputs ``(n, 2)``: the mean, and the raw scale of ``bhnbench.likelihoods.Gaussian``.
    """

    def __init__(self, n_hidden: int, n_layers: int = 1, *, n_inputs: int = 1) -> None:
        super().__init__()
        self.mean = mlp(n_inputs, n_layers * [n_hidden], 1)
        self.raw_scale = nn.Parameter(torch.tensor(-1.0))  # a standard deviation of 0.31

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Inputs ``(n, n_inputs)`` to outputs ``(n, 2)``."""
        mean = self.mean(inputs)
        return torch.cat([mean, self.raw_scale.expand_as(mean)], dim=-1)


NOISES = ("homoscedastic", "heteroscedastic")


def regression_network(noise: str, n_inputs: int, n_hidden: int) -> Callable[[], nn.Module]:
    """Makes a network of one hidden layer for ``bhnbench.likelihoods.Gaussian``.

    Args:
        noise: one of ``NOISES``: one learned scale, or a second output of the last layer.
        n_inputs: columns of the inputs.
        n_hidden: ReLU units.
    """
    if noise == "homoscedastic":
        return partial(Homoscedastic, n_hidden, n_inputs=n_inputs)
    return partial(mlp, n_inputs, (n_hidden,), 2)
