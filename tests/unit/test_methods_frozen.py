"""What a user froze stays as it is, whatever a method makes random or rescales."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from bhnbench.contract import Problem
from bhnbench.testing.problems import make_problem
from bhnbench_methods.bayes_by_backprop import BayesByBackprop
from bhnbench_methods.bayesian_hypernet import BayesianHypernet
from bhnbench_methods.data_init import standardise
from bhnbench_methods.fitting import TrainedMethod
from bhnbench_methods.models import Model
from bhnbench_methods.multiplicative_normalizing_flow import MultiplicativeNormalizingFlow


class Called(nn.Module):
    """Calls its layer as ``layer(input=x)``."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.layer(input=x)
        return outputs


def with_frozen_bias() -> Problem:
    problem = make_problem("classification", epochs=2)
    n_inputs = problem.train.inputs.shape[1]
    n_outputs = problem.network()(problem.train.inputs[:2]).shape[1]

    def network() -> nn.Module:
        frozen = nn.Linear(n_inputs, 8)
        nn.init.constant_(frozen.bias.requires_grad_(False), 0.5)
        return nn.Sequential(frozen, nn.Tanh(), nn.Linear(8, n_outputs))

    return replace(problem, network=network)


@pytest.mark.parametrize(
    "method",
    [
        BayesByBackprop(),
        BayesByBackprop(estimator="weights", prior="scale_mixture"),
        MultiplicativeNormalizingFlow(),
        BayesianHypernet(data_init=True),
    ],
)
def test_a_frozen_bias_is_known(method: TrainedMethod) -> None:
    problem = with_frozen_bias()
    assert method.supports(problem) is None
    fitted = method.fit(problem, rng=torch.Generator().manual_seed(1), report=lambda *_: None)
    assert isinstance(fitted, Model)
    (bias,) = (p for p in fitted.parameters() if p.shape == (8,) and (p == 0.5).all())
    variances = {n: p.shape for n, p in fitted.named_parameters() if "bias_log_variance" in n}
    assert (8,) not in variances.values()
    outputs = fitted.sample(problem.validation.inputs, 3, rng=torch.Generator().manual_seed(2))
    assert outputs.isfinite().all()
    # The bias reaches the outputs: another one gives others.
    with torch.no_grad():
        bias.add_(1.0)
    moved = fitted.sample(problem.validation.inputs, 3, rng=torch.Generator().manual_seed(2))
    assert not torch.allclose(outputs, moved)


def test_standardisation_leaves_frozen_biases_and_hears_keywords() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(5, 4)
    nn.init.constant_(layer.bias.requires_grad_(False), 0.5)
    inputs = 3 * torch.randn(64, 5)
    network = Called(layer)
    standardise(network, inputs)
    assert (layer.bias == 0.5).all()
    torch.testing.assert_close(
        network(inputs).std(0, correction=0), torch.ones(4), rtol=1e-4, atol=0
    )
