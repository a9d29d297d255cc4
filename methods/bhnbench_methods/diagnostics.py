"""Looks at a trained posterior and warns where it is none: collapsed to a point, or not finite."""

from __future__ import annotations

import warnings

import torch

from bhnbench.contract import Predictive, Problem
from bhnbench.errors import PosteriorWarning
from bhnbench_methods.streams import seeded

N_INPUTS, N_SAMPLES = 64, 8  # enough: both faults show everywhere, or they do no harm
_SEED = 0  # of streams of its own, so that a fit's results do not depend on being looked at

# Standard deviation between samples over the spread of the outputs, below which the samples are
# one network. Logits that spread by 10 then differ by 0.001, and no probability by more than
# 0.0004: no score tells such samples from a point estimate. Posteriors that are merely narrow lie
# far above: gains of standard deviation 0.002 give 0.004 (784-800-800-10) and 0.009 (1-50-1).
MIN_DISAGREEMENT = 1e-4
# What rounding may do to samples of equal weights, in units of the floating-point type's epsilon
# times the size of the outputs. It decides where they hardly depend on the inputs.
_ROUNDING = 8


def check_posterior(predictive: Predictive, problem: Problem, *, is_random: bool) -> None:
    """Draw a few samples on a few validation inputs and look at them.

    Args:
        predictive: the result of a fit.
        problem: what it was fitted to.
        is_random: whether its samples are meant to differ.

    Warns:
        PosteriorWarning: a sample is not finite; or samples that are meant to differ do not.
    """
    outputs = _sample(predictive, problem)
    n_bad = int((~outputs.isfinite()).sum())
    if n_bad:
        _warn(
            f"posterior samples must be finite, but {n_bad} of {outputs.numel()} outputs are not; "
            "try a lower learning rate, a narrower prior, or inputs of unit scale"
        )
    elif is_random and (found := disagreement(outputs)) < MIN_DISAGREEMENT:
        _warn(
            "posterior samples must differ, but their standard deviation is "
            f"{found:.1e} of the spread of the outputs (below {MIN_DISAGREEMENT:g} they are one "
            "network); try other values of what sets it: an initial or prior scale, a rate, a step"
        )


def disagreement(outputs: torch.Tensor) -> float:
    """Standard deviation between samples, relative to the spread over inputs and samples.

    Neither an offset of an output nor the unit of all of them matters. It is 0 where samples
    differ by no more than rounding.

    Args:
        outputs: ``(n_samples, n, n_outputs)``.
    """
    exact = outputs.double()
    between = exact.var(dim=0).mean()
    spread = (exact - exact.mean(dim=(0, 1))).square().mean()
    rounding = (_ROUNDING * torch.finfo(outputs.dtype).eps) ** 2 * exact.square().mean()
    return float((between / spread).sqrt()) if between > rounding else 0.0


def _sample(predictive: Predictive, problem: Problem) -> torch.Tensor:
    split = problem.validation if len(problem.validation) else problem.train
    inputs = split.inputs[:: -(-len(split) // N_INPUTS)]  # evenly, lest they be sorted
    with torch.no_grad(), seeded(_SEED, inputs.device):
        rng = torch.Generator().manual_seed(_SEED)
        return predictive.sample(inputs, N_SAMPLES, rng=rng)


def _warn(text: str) -> None:
    warnings.warn(text, PosteriorWarning, stacklevel=4)  # whoever asked for the fit
