"""Networks with dropout: what plain dropout and MC dropout share. They differ in prediction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import nn

from bhnbench.contract import Problem
from bhnbench.errors import UnsupportedError
from bhnbench.space import Choice, Float, hyperparameter
from bhnbench_methods.fitting import TrainedMethod
from bhnbench_methods.layers import LAYERS, GatedLayer, Site, check_regular, run, trace, wrap
from bhnbench_methods.models import Forward, Model, half_square, new_network

MAX_RATE = 0.99
TEMPERATURE = 0.1  # of the relaxed masks that learned rates are trained with (Gal et al., 2017)


@dataclass(frozen=True, kw_only=True)
class DropoutMethod(TrainedMethod):
    """The hyperparameters of dropout, and the layers that they are of."""

    rate: float = hyperparameter(
        0.5,
        "probability that a hidden activation is dropped",
        valid=Float(0, MAX_RATE),
        search=Float(0.05, 0.6),
    )
    input_rate: float = hyperparameter(
        0.0, "probability that an input of the network is dropped", valid=Float(0, MAX_RATE)
    )
    layer_rates: str | None = hyperparameter(
        None,
        'in place of rate, such as "0.1, 0.5": one for the input of each layer but the first, '
        "in the order of execution",
    )
    learn_rates: bool = hyperparameter(
        False, "learn the rates above 0, one a layer, from these initial values"
    )
    drop: str = hyperparameter(
        "units",
        "what is dropped as one: an activation, or a feature map with all its positions",
        valid=Choice("units", "maps"),
    )
    weight_decay: float = hyperparameter(
        0.0, "precision of the Gaussian prior on the weights", valid=Float(0, 1e6)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layer_rates is not None:
            _read_rates(self.layer_rates)

    def gated(self, sites: Sequence[Site]) -> list[tuple[Site, float]]:
        """The layers whose input is dropped, with their rates.

        Raises:
            UnsupportedError: there is nothing to drop, or the rates are not those of the layers.
        """
        n_hidden = len(sites) - 1
        if n_hidden < 1 and not (sites and self.input_rate):
            n = len(sites)
            raise UnsupportedError(
                f"it needs at least two Linear or Conv layers, but the network has {n}"
            )
        hidden = [self.rate] * n_hidden
        if self.layer_rates is not None:
            hidden = _read_rates(self.layer_rates)
            if len(hidden) != n_hidden:
                raise UnsupportedError(
                    "layer_rates must hold one rate for each Linear or Conv layer but the "
                    f"first, here {n_hidden}, but holds {len(hidden)}: {self.layer_rates!r}"
                )
        pairs = zip(sites, [self.input_rate, *hidden], strict=True)
        return [(site, rate) for site, rate in pairs if rate > 0]


def _read_rates(text: str) -> list[float]:
    """The rates in ``text``, separated by commas."""
    try:
        rates = [float(part) for part in text.split(",")]
    except ValueError:
        rates = []
    if not rates or not all(0 <= rate <= MAX_RATE for rate in rates):
        raise ValueError(
            f"layer_rates must be numbers in [0, {MAX_RATE}] with commas between, such as "
            f'"0.1, 0.5", but got {text!r}'
        )
    return rates


class DropoutModel(Model):
    """A network whose layers' inputs are multiplied by masks ``z / (1 - rate)``, ``z`` Bernoulli.

    The mean of such a mask is one, so that without masks the network is the one that the
    weight-scaling rule asks for.
    """

    fixed_rates: torch.Tensor

    def __init__(self, problem: Problem, method: DropoutMethod) -> None:
        super().__init__()
        network = new_network(problem)
        found = trace(network, problem.train.inputs[:2])
        gated = method.gated(found.sites)
        check_regular(site for site, _ in gated)
        self.network, self.gates = wrap(network, [site for site, _ in gated], GatedLayer)
        inner = [gate.layer for gate in self.gates]
        layers = (m for m in self.network.modules() if isinstance(m, LAYERS))
        gated_weights = {id(layer.weight) for layer in inner}
        ungated = {id(layer.weight): layer for layer in layers}
        self.ungated = [layer for key, layer in ungated.items() if key not in gated_weights]
        pairs = zip(gated, inner, strict=True)
        self.shapes = [_mask_shape(site, layer, method.drop) for (site, _), layer in pairs]
        self.sizes = [prod(shape) for shape in self.shapes]
        self.n_random, self.n_activations = sum(self.sizes), found.n_activations
        self.weight_decay = method.weight_decay
        self.dtype = next(network.parameters()).dtype  # inputs may be integers
        rates = torch.tensor([rate for _, rate in gated], dtype=self.dtype)
        rates = rates.to(problem.train.inputs.device)
        self.register_buffer("fixed_rates", rates, persistent=False)
        self.logits = nn.Parameter(rates.logit()) if method.learn_rates and gated else None

    @property
    def rates(self) -> torch.Tensor:
        """One a gated layer."""
        return self.fixed_rates if self.logits is None else self.logits.sigmoid()

    def draw_noise(self, inputs: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        """A uniform number for every mask of every example, ``(n, n_masks)``.

        Compared with a rate, it takes a quarter of the time of a Bernoulli draw.
        """
        shape = len(inputs), sum(self.sizes)
        return torch.rand(shape, generator=rng, dtype=self.dtype, device=inputs.device)

    def forward(self, inputs: torch.Tensor, noise: torch.Tensor) -> Forward:
        """Outputs under masks of each example's own, and the KL up to a constant."""
        rates = self.rates
        relaxed = self.logits is not None
        outputs = run(self.network, self.gates, self._masks(noise, rates, relaxed), inputs)
        return outputs, self._kl(outputs, rates)

    def figures(self) -> dict[str, float]:
        """Learned rates, in the order of execution."""
        if self.logits is None:
            return {}
        return {f"rate_{i}": rate for i, rate in enumerate(self.rates.tolist(), start=1)}

    def run_plain(self, inputs: torch.Tensor) -> torch.Tensor:
        """Outputs without masks."""
        return run(self.network, self.gates, [None] * len(self.gates), inputs)

    def run_masked(self, inputs: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Outputs under the same masks for all inputs, made of uniform ``noise (n_masks,)``."""
        return run(self.network, self.gates, self._masks(noise, self.rates), inputs)

    def _masks(
        self, noise: torch.Tensor, rates: torch.Tensor, relaxed: bool = False
    ) -> list[torch.Tensor]:
        pieces = zip(noise.split_with_sizes(self.sizes, dim=-1), self.shapes, strict=True)
        noises = [piece.view(*piece.shape[:-1], *shape) for piece, shape in pieces]
        make = relaxed_mask if relaxed else hard_mask
        return [make(u, rate) for u, rate in zip(noises, rates.unbind(), strict=True)]

    def _kl(self, outputs: torch.Tensor, rates: torch.Tensor) -> torch.Tensor:
        """Of the masked weights, without what depends neither on weights nor on rates.

        A mask ``z`` multiplies ``M = w / (1 - rate)``; each of its zeros and ones is one of two
        narrow peaks. The prior costs ``(1 - rate) / 2 * weight_decay |M|^2``, and the choice
        between the peaks gives its entropy (here less that of a fair coin) for each mask.
        """
        kl = outputs.new_zeros(())
        if self.weight_decay:
            layers = [gate.layer for gate in self.gates]
            pairs = zip(layers, rates.unbind(), strict=True)
            squares = [half_square(layer) / (1 - rate) for layer, rate in pairs]
            squares += [half_square(layer) for layer in self.ungated]
            kl = self.weight_decay * torch.stack(squares).sum()
        if self.logits is not None:
            deficits = math.log(2) - torch.special.entr(rates) - torch.special.entr(1 - rates)
            kl = kl + sum(n * d for n, d in zip(self.sizes, deficits.unbind(), strict=True))
        return kl


def hard_mask(uniform: torch.Tensor, rate: torch.Tensor) -> torch.Tensor:
    """``z / (1 - rate)`` with ``P(z = 0) = rate``."""
    return (uniform >= rate) / (1 - rate)


def relaxed_mask(
    uniform: torch.Tensor, rate: torch.Tensor, temperature: float = TEMPERATURE
) -> torch.Tensor:
    """``hard_mask`` with its step made smooth, so that the rate gets a gradient."""
    keep = (uniform.logit() / temperature - rate.logit() / temperature).sigmoid()
    return keep / (1 - rate)


def _mask_shape(site: Site, layer: nn.Module, drop: str) -> tuple[int, ...]:
    shape = site.input_shape
    if drop == "units":
        return shape
    ones = (1,) * (len(shape) - 1)  # one mask for all positions: it masks weights
    return (*ones, shape[-1]) if isinstance(layer, nn.Linear) else (shape[0], *ones)
