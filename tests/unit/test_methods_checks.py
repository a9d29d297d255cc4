"""What a problem and its network must be: told in one line, before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from bhnbench.contract import Problem, Split
from bhnbench.errors import ContractError, UnsupportedError
from bhnbench.testing.problems import make_problem
from bhnbench_methods.bayes_by_backprop import BayesByBackprop
from bhnbench_methods.bayes_by_hypernet import BayesByHypernet
from bhnbench_methods.bayesian_hypernet import BayesianHypernet
from bhnbench_methods.cyclical_sghmc import CyclicalSGHMC
from bhnbench_methods.deep_ensemble import DeepEnsemble
from bhnbench_methods.distilled import Distilled
from bhnbench_methods.dropout import Dropout
from bhnbench_methods.fitting import TrainedMethod
from bhnbench_methods.maximum_likelihood import MaximumLikelihood
from bhnbench_methods.mc_dropout import MCDropout
from bhnbench_methods.multiplicative_normalizing_flow import MultiplicativeNormalizingFlow
from bhnbench_methods.sgld import SGLD
from bhnbench_methods.snapshot_ensemble import SnapshotEnsemble
from bhnbench_methods.sparse_variational_dropout import SparseVariationalDropout
from bhnbench_methods.variational_dropout import VariationalDropout

VARIATIONAL = [
    BayesByBackprop(initial_sd=0.3),
    VariationalDropout(),
    SparseVariationalDropout(),
    SparseVariationalDropout(prediction="sample"),
    MultiplicativeNormalizingFlow(n_flows=1, width=4),
]
REPLACING = [
    *VARIATIONAL,
    Dropout(),
    MCDropout(),
    BayesianHypernet(width=4),
    BayesByHypernet(),
    Distilled(n_teacher_samples=2),
]
CHAINS = [SGLD(n_kept=2), CyclicalSGHMC(n_cycles=1, n_kept_per_cycle=2)]
OTHERS = [MaximumLikelihood(), DeepEnsemble(n_members=2), SnapshotEnsemble(n_cycles=2), *CHAINS]


def named(methods: list[TrainedMethod]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("method", methods, ids=lambda m: type(m).__name__)


def fit(method: TrainedMethod, problem: Problem) -> Any:
    rng = torch.Generator().manual_seed(0)
    return method.fit(problem, rng=rng, report=lambda *_: None)


def with_network(network: Callable[[], nn.Module], kind: str = "classification") -> Problem:
    return replace(make_problem(kind, epochs=1), network=network)


# Data and budget


CLASSES, VALUES = make_problem("classification"), make_problem("regression")


def changed(problem: Problem, split: str = "train", **parts: Any) -> Problem:
    return replace(problem, **{split: replace(getattr(problem, split), **parts)})


X, T, Y = CLASSES.train.inputs, CLASSES.train.targets, VALUES.train.targets
MISTAKES = {
    "numpy": (
        changed(CLASSES, inputs=X.numpy()),
        "train.inputs must be a torch.Tensor, but got a ndarray; use torch.from_numpy",
    ),
    "numpy validation": (
        changed(CLASSES, "validation", inputs=X.numpy()),
        "validation.inputs must be a torch.Tensor",
    ),
    "lengths": (
        changed(CLASSES, targets=T[:40]),
        "train must hold a target for each input, but got 48 inputs and 40 targets",
    ),
    "empty": (changed(CLASSES, inputs=X[:0], targets=T[:0]), "train must hold an example"),
    "epochs": (replace(CLASSES, epochs=0), "epochs must be at least 1, but got 0"),
    "batches": (replace(CLASSES, batch_size=0), "batch_size must be at least 1, but got 0"),
    "other inputs": (
        changed(CLASSES, "validation", inputs=CLASSES.validation.inputs.double()),
        "validation.inputs must be like train.inputs",
    ),
    "one-hot": (
        changed(CLASSES, targets=nn.functional.one_hot(T)),
        "train.targets of shape (n,) must hold for Categorical, but got (48, 3)",
    ),
    "int32": (
        changed(CLASSES, targets=T.int()),
        "train.targets must be int64 for Categorical, but got torch.int32; use targets.long()",
    ),
    "from one": (
        changed(CLASSES, targets=T + 1),
        "train.targets must be classes from 0 to 2 for Categorical(3), but go from 1 to 3",
    ),
    "negative": (
        changed(CLASSES, "validation", targets=CLASSES.validation.targets - 1),
        "validation.targets must be classes from 0 to 2 for Categorical(3), but go from -1 to 1",
    ),
    "flat": (
        changed(VALUES, targets=Y.squeeze(1)),
        "train.targets of shape (n, d) must hold for Gaussian, but got (48,); "
        "use targets[:, None]",
    ),
    "counts": (
        changed(VALUES, targets=Y.long()),
        "train.targets must be floating-point for Gaussian, but got torch.int64",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
@named([MaximumLikelihood(), Distilled(teacher="maximum_likelihood")])
def test_mistakes_in_the_data_are_told(method: TrainedMethod, name: str) -> None:
    problem, rule = MISTAKES[name]
    reason = method.supports(problem)
    assert reason is not None
    assert rule in reason
    assert "\n" not in reason
    with pytest.raises(ContractError) as caught:
        fit(method, problem)
    assert str(caught.value).startswith(rule)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("part", ["inputs", "targets"])
@pytest.mark.parametrize("split", ["train", "validation"])
def test_data_must_be_finite(split: str, part: str, bad: float) -> None:
    tensor = getattr(getattr(VALUES, split), part).clone()
    tensor[3] = bad
    rule = rf"{split}\.{part} must be finite, but 1 of {len(tensor)} numbers are not"
    with pytest.raises(ContractError, match=rule):
        fit(MaximumLikelihood(), changed(VALUES, split, **{part: tensor}))


def test_numbers_whose_sum_overflows_are_finite() -> None:
    inputs = torch.full_like(VALUES.train.inputs, 3e38)
    assert not inputs.sum().isfinite()
    heard: list[object] = []
    MaximumLikelihood(learning_rate=1e-8).fit(
        replace(changed(VALUES, inputs=inputs), network=Constant, epochs=1),
        rng=torch.Generator().manual_seed(0),
        report=lambda *_: heard.append(1),
    )
    assert heard


class Constant(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.outputs = nn.Parameter(torch.zeros(2))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.outputs.expand(len(inputs), -1)


@named([MaximumLikelihood(), DeepEnsemble(n_members=2), MCDropout(), BayesByBackprop()])
@pytest.mark.parametrize(("kind", "n"), [("classification", 4), ("regression", 1)])
def test_outputs_must_be_those_of_the_likelihood(method: TrainedMethod, kind: str, n: int) -> None:
    problem = make_problem(kind)
    n_inputs, n_right = problem.train.inputs.shape[1], {"classification": 3, "regression": 2}[kind]

    def network() -> nn.Module:
        return nn.Sequential(nn.Linear(n_inputs, 4), nn.Tanh(), nn.Linear(4, n))

    with pytest.raises(ContractError, match=rf"must have {n_right} columns .*, but have {n};"):
        fit(method, replace(problem, network=network))


@dataclass(frozen=True)
class Poisson:
    """A user's own likelihood: counts ``(n,)``, log rates ``(n, 1)``."""

    def log_prob(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return torch.distributions.Poisson(outputs.squeeze(-1).exp()).log_prob(targets)

    def scores(self, outputs: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
        return {"nll": -self.log_prob(outputs, targets).mean().item()}


@named([MaximumLikelihood(), BayesByBackprop(), MCDropout(), SGLD(n_kept=2)])
def test_a_likelihood_of_ones_own_is_taken_at_its_word(method: TrainedMethod) -> None:
    counts = Split(VALUES.train.inputs, torch.arange(48) % 5)
    network = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1))
    problem = Problem(counts, counts, Poisson(), lambda: network, 1, 16)
    assert method.supports(replace(problem, network=lambda: nn.Sequential(*network))) is None
    assert fit(method, problem).sample(counts.inputs, 2, rng=torch.Generator()).isfinite().all()


# The network


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.hidden, self.last = nn.Embedding(10, 4), nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.last(self.hidden(self.words(inputs).mean(1)).tanh())


@named([*REPLACING, *OTHERS])
def test_whole_numbers_are_for_networks_that_take_them(method: TrainedMethod) -> None:
    data = Split(torch.arange(40).view(20, 2) % 10, torch.arange(20) % 3)
    problem = replace(CLASSES, train=data, validation=data, network=Words)
    assert method.supports(problem) is None
    reason = method.supports(replace(problem, network=CLASSES.network))
    assert reason is not None
    assert "on rows of shape (2,), torch.int64, it fails (RuntimeError: " in reason
    assert reason.endswith("; try inputs.float()")


def frozen() -> nn.Module:
    return CLASSES.network().requires_grad_(False)


@named([*REPLACING, *OTHERS])
def test_a_network_that_is_all_frozen_is_refused(method: TrainedMethod) -> None:
    problem = replace(CLASSES, network=frozen)
    reason = method.supports(problem)
    assert reason is not None
    assert "to train, but" in reason
    assert reason.endswith("frozen; call requires_grad_(True) on one")
    with pytest.raises(UnsupportedError, match="to train, but"):
        fit(method, problem)


class Tied(nn.Module):
    """Uses the weights of a layer twice: by calling it, and by reading them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.hidden, self.last = nn.Linear(2, 8), nn.Linear(8, 4), nn.Linear(8, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.last(self.hidden(self.first(inputs)).tanh() @ self.hidden.weight)


class Attending(nn.Module):
    """In eval mode torch's transformer reads the weights of its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(1, 4), nn.Linear(4, 3)
        self.block = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True, dropout=0.0)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.last(self.block(self.first(inputs.unsqueeze(-1))).mean(1))


@named(REPLACING)
@pytest.mark.parametrize("network", [Tied, Attending])
def test_a_network_that_reads_weights_is_refused(
    network: Callable[[], nn.Module], method: TrainedMethod
) -> None:
    """Rather than given the means of random ones."""
    reason = method.supports(with_network(network))
    assert reason is not None
    assert "the network must call its layers, but reads 'weight' of one" in reason
    with pytest.raises(UnsupportedError, match="the network must call its layers"):
        fit(method, with_network(network))


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_transformers_are_sampled_where_they_call_their_layers() -> None:
    """A sample is the plain network at the drawn weights."""
    problem, inputs = with_network(Attending), CLASSES.validation.inputs
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        assert BayesByBackprop().supports(problem) is None
        fitted = fit(BayesByBackprop(initial_sd=0.5), problem)
        weights = torch.randn(fitted.n_random, generator=torch.Generator().manual_seed(1))
        outputs = fitted.run_with(inputs, weights)
        plain = Attending().eval()
        state = {n.replace(".layer.", "."): t for n, t in fitted.network.state_dict().items()}
        plain.load_state_dict({name: state[name] for name in plain.state_dict()})
        drawn = weights.split_with_sizes(fitted.sizes)
        for site, layer, piece in zip(fitted.sites, fitted.layers, drawn, strict=True):
            ours, own = layer.with_weights(piece), plain.get_submodule(site.name)
            own.weight.data, own.bias.data = ours.weight, ours.bias
        torch.testing.assert_close(outputs, plain(inputs))
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


class ByName(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(2, 8), nn.Linear(8, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.last(input=self.first(input=inputs).tanh())


@named(REPLACING)
def test_layers_may_be_called_by_name(method: TrainedMethod) -> None:
    assert method.supports(with_network(ByName)) is None


def weight_normed() -> nn.Module:
    first = parametrizations.weight_norm(nn.Linear(2, 8))
    return nn.Sequential(first, nn.Tanh(), nn.Linear(8, 3))


@named([*VARIATIONAL, *CHAINS, BayesianHypernet(data_init=True)])
def test_computed_weights_are_refused_where_they_must_be_parameters(method: TrainedMethod) -> None:
    """To have a prior of their own, to be set to zero, or to be rescaled."""
    rule = "weights must be parameters, but those of layer '0' are computed from others"
    assert str(method.supports(with_network(weight_normed))).startswith(rule)
    with pytest.raises(UnsupportedError, match=rule):
        fit(method, with_network(weight_normed))


@named([MaximumLikelihood(), MCDropout(), BayesianHypernet(width=4), BayesByHypernet()])
def test_computed_weights_are_taken_elsewhere(method: TrainedMethod) -> None:
    assert method.supports(with_network(weight_normed)) is None


@named([*REPLACING, *OTHERS])
def test_supports_leaves_a_random_stream_alone(method: TrainedMethod) -> None:
    """Also where the network draws numbers of its own, and normalises the batch."""

    def network() -> nn.Module:
        layers = nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3)
        return nn.Sequential(*layers)

    before = torch.get_rng_state()
    assert method.supports(replace(CLASSES, network=network)) is None
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.is_grad_enabled()
