"""Compression: how many weights can go before the error rises?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from bhnbench.contract import (
    Checkpoint,
    Draw,
    Fit,
    Holdout,
    Metric,
    Outcome,
    Predictive,
    Prunable,
    Report,
    Split,
)
from bhnbench.metrics import ACCURACY, accuracy, mixture_log_probs
from bhnbench.space import Float, Int, setting
from bhnbench_tasks.figures.bars import DrawBars
from bhnbench_tasks.image_task import NETWORKS, ImageTask
from bhnbench_tasks.plain_network import trained_once
from bhnbench_tasks.streams import spawn

COMPRESSION = Metric(
    "compression",
    "maximize",
    "x",
    "weights over weights that are not zero; 1 where pruning costs more error than is tolerated",
)
ERROR = Metric("error", "minimize", "%", "images that the pruned network gets wrong")
SPARSITY = Metric("sparsity", "maximize", "%", "weights that are zero")
CHUNK = 5000  # images that are scored at once
_ROUNDING = 1e-9  # of a difference of percentages

draw_sparsity = DrawBars(
    "layers", "sparsity", "weights pruned (%)", "layer {}", high=100, note="{compression:.3g}x"
)
draw_errors = DrawBars(
    "errors", "error", "error (%)", ("dense network", "pruned network", "predictive")
)


@dataclass(frozen=True, kw_only=True)
class Compression(ImageTask):
    """Prune the weights that a posterior does not need, and see what is left of the network.

    A method whose predictive can be pruned (``sparse_variational_dropout``) gives up the
    network with zeros for the weights that it does without. That plain network is what is
    scored: its zeros are counted, weight by weight, and ``error`` is its own. ``compression``
    is the number of weights over those that are left, biases not counted (of an empty network,
    the number of weights); it counts only where the error is at most ``tolerance`` points above
    that of a dense network, and is 1 where it is more: small and wrong is no compression. A
    method that cannot be pruned has compression 1, sparsity 0, and the error of its predictive,
    whose ``accuracy`` stands beside for all.

    The dense network is the same for all methods: the task trains it by maximum likelihood
    (Adam, learning rate 1e-3) from the same data, for the same epochs and with a stream of its
    own, to the last epoch. Of the method it knows nothing.

    The networks are those of Molchanov, Ashukha and Vetrov (2017), "Variational dropout
    sparsifies deep neural networks": ``lenet_300_100`` (68-fold at an error of 1.92 %, dense
    1.64 %) and ``lenet_5`` (280-fold at 0.75 %, dense 0.80 %) on MNIST. ``dataset: mnist,
    epochs: 200, batch_size: 100`` is their training.

    Departures: they train on all 60 000 images and look at the test error throughout; here
    10 000 of them are for validation. Pixels are in [0, 1], without the mean taken off. On
    the digits, 1000 images for 50 200 weights, the pruned network is some points worse
    than the dense one: raise ``tolerance`` there, or take MNIST.
    """

    network: str = setting(
        "lenet_300_100", "the network; lenet_5 and cnn_32 are for images of 28x28", valid=NETWORKS
    )
    epochs: int = setting(100, "passes over the training images", valid=Int(1, 100_000))
    tolerance: float = setting(
        0.3, "points of error above the dense network's at which it counts", valid=Float(0, 100)
    )

    metrics: ClassVar[tuple[Metric, ...]] = (COMPRESSION, ERROR, SPARSITY, ACCURACY)
    figures: ClassVar[Mapping[str, Draw]] = {"sparsity": draw_sparsity, "errors": draw_errors}

    def evaluate(
        self,
        fit: Fit,
        *,
        holdout: Holdout,
        rng: torch.Generator,
        report: Report,
        checkpoint: Checkpoint,
    ) -> Outcome:
        """Fit once; its steps are epochs."""
        dataset = self.load()
        dense_rng, score_rng = spawn(rng, 2)
        predictive = fit(self.problem(dataset), report=report)
        dense = trained_once(self, self.data_digest, dense_rng.initial_seed())
        scored = dataset.holdout(holdout)
        outputs = predictive.sample(scored.inputs, self.n_samples, rng=score_rng).detach()
        right = accuracy(mixture_log_probs(outputs).exp(), scored.targets)
        pruned = pruned_network(predictive)
        error = 100 - right if pruned is None else error_of(pruned, scored)
        return self._outcome(dense, pruned, [error_of(dense, scored), error, 100 - right])

    def _outcome(
        self, dense: nn.Module, pruned: nn.Module | None, errors: Sequence[float]
    ) -> Outcome:
        """Scores and tables, given the errors of the dense and pruned networks and predictive."""
        dense_error, error, predictive_error = errors
        layers = count_weights(dense, dense if pruned is None else pruned)
        n_weights, n_left = layers["n_weights"].sum(), layers["n_left"].sum()
        counts = pruned is not None and error <= dense_error + self.tolerance + _ROUNDING
        return Outcome(
            scores={
                "compression": float(n_weights / max(n_left, 1)) if counts else 1.0,
                "error": error,
                "sparsity": float(100 * (1 - n_left / n_weights)),
                "accuracy": 100 - predictive_error,
            },
            tables={"layers": layers, "errors": {"error": np.array(errors)}},
        )


def pruned_network(predictive: Predictive) -> nn.Module | None:
    """The predictive's network with zeros, on the CPU; None where it cannot be pruned."""
    return predictive.pruned().cpu().eval() if isinstance(predictive, Prunable) else None


def count_weights(dense: nn.Module, pruned: nn.Module) -> dict[str, np.ndarray]:
    """Of each layer: its number, weights, those that are not zero, and the others in %.

    A layer is a parameter with more than one dimension, so biases are left out.
    """
    pairs = zip(_weights(dense), _weights(pruned), strict=True)
    n_weights, n_left = np.array([(w.numel(), int(left.count_nonzero())) for w, left in pairs]).T
    return {
        "layer": np.arange(1, len(n_weights) + 1),
        "n_weights": n_weights,
        "n_left": n_left,
        "sparsity": 100 * (1 - n_left / n_weights),
    }


def _weights(network: nn.Module) -> list[torch.Tensor]:
    return [parameter for parameter in network.parameters() if parameter.ndim > 1]


@torch.no_grad()
def error_of(network: nn.Module, split: Split) -> float:
    """Percentage of images whose largest output is not the right class."""
    outputs = torch.cat([network(inputs) for inputs in torch.split(split.inputs, CHUNK)])
    return 100 - accuracy(outputs, split.targets)
