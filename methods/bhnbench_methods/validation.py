"""How good the present parameters are on validation data, at a bounded cost."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from bhnbench.contract import Problem, Split
from bhnbench_methods.replicas import Replicas

MAX_ROWS = 1000  # a standard error of 0.7 points where the accuracy is 95 %
_SEED = 0


class Validation:
    """The validation examples, at most ``MAX_ROWS`` evenly spaced ones, of every replica.

    They, and the random numbers of the posterior samples, are the same in all epochs and for
    all replicas, so that what is compared differs in nothing but its parameters.
    """

    def __init__(self, problems: Sequence[Problem], n_samples: int) -> None:
        distinct = {id(p.validation): p.validation for p in problems}  # members share one
        thinned = {key: _thin(split) for key, split in distinct.items()}
        self.splits = [thinned[id(problem.validation)] for problem in problems]
        self.likelihood = problems[0].likelihood
        self.n_samples = n_samples
        inputs = self.splits[0].inputs
        self.inputs = (
            inputs.expand(len(problems), *inputs.shape)
            if len(distinct) == 1
            else torch.stack([split.inputs for split in self.splits])
        )

    def __len__(self) -> int:
        return len(self.splits[0])

    @torch.no_grad()
    def outputs(self, replicas: Replicas) -> torch.Tensor:
        """Posterior samples of the present parameters, ``(R, n_samples, n, n_outputs)``."""
        return replicas.sample(self.inputs, self.n_samples, _SEED)

    def score(self, outputs: torch.Tensor) -> torch.Tensor:
        """Mean log-likelihood of each replica's mixture of samples, ``(R,)``."""
        pairs = zip(outputs, self.splits, strict=True)
        return torch.stack([self._score(samples, split) for samples, split in pairs])

    def scores(self, outputs: torch.Tensor, members: slice) -> dict[str, float]:
        """The likelihood's scores of the mixture of some replicas of one problem."""
        split = self.splits[members][0]
        return self.likelihood.scores(outputs[members].flatten(0, 1), split.targets)

    def _score(self, samples: torch.Tensor, split: Split) -> torch.Tensor:
        log_prob = self.likelihood.log_prob(samples, split.targets)
        return (log_prob.logsumexp(0) - math.log(len(samples))).mean()


def _thin(split: Split) -> Split:
    if len(split) <= MAX_ROWS:
        return split
    rows = torch.arange(MAX_ROWS, device=split.inputs.device) * len(split) // MAX_ROWS
    return Split(split.inputs[rows], split.targets[rows])
