"""Curvature of the log-likelihood in the weights of a trained network, by laplace-torch."""

from __future__ import annotations

import importlib
import importlib.util
import math
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn
from torch.func import functional_call, jacrev, vmap
from torch.nn import functional as F

from bhnbench.contract import Problem
from bhnbench.errors import DivergedError
from bhnbench.likelihoods import MIN_SCALE, Categorical

_LinAlgError = torch.linalg.LinAlgError  # type: ignore[attr-defined]  # torch does not list it
_MAX_JACOBIAN = 2**22  # numbers in the Jacobians of one batch
_MAX_ROWS = 128  # examples in one batch


def why_unavailable() -> str | None:
    """What is amiss with laplace-torch, or None."""
    if importlib.util.find_spec("laplace") is None:
        return (
            "it needs the laplace-torch library: `make setup` installs it in a clone, else "
            "pip install 'bhnbench[laplace]'; `bhnbench methods laplace` says how to do without "
            "torchvision"
        )
    try:
        _library()
    except Exception as error:  # a torchvision built for another torch raises RuntimeError
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return (
            f"it needs the laplace-torch library, which cannot be imported ({reason}); torch and "
            "torchvision must come from the same package index"
        )
    return None


def _library() -> Any:  # noqa: ANN401 - an optional module without types
    with scripting_silenced():
        return importlib.import_module("laplace")


@contextmanager
def scripting_silenced() -> Iterator[None]:
    """No warning that torch deprecates its scripts, which others use: the library, torch's jvp."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.script`", DeprecationWarning)
        yield


class Block(nn.Module):
    """A positive semi-definite matrix ``(L x R) diag(values) (L x R)^T`` (x: Kronecker).

    ``values`` are eigenvalues, ``(n_left, n_right)``; the columns of L and R are eigenvectors,
    None for an identity.
    """

    values: torch.Tensor
    left: torch.Tensor | None
    right: torch.Tensor | None

    def __init__(
        self,
        values: torch.Tensor,
        left: torch.Tensor | None = None,
        right: torch.Tensor | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("values", values)
        self.register_buffer("left", left)
        self.register_buffer("right", right)

    def inverse_root(self, vectors: torch.Tensor, precision: float) -> torch.Tensor:
        """``(matrix + precision)^(-1/2)``, the symmetric root, times ``(k, n)`` vectors."""
        v = vectors.view(-1, *self.values.shape)
        v = v if self.left is None else self.left.mT @ v
        v = v if self.right is None else v @ self.right
        v = v * (self.values + precision).rsqrt()
        v = v if self.left is None else self.left @ v
        v = v if self.right is None else v @ self.right.mT
        return v.flatten(1)


class Curvature(nn.Module):
    """A positive semi-definite matrix of blocks along the diagonal."""

    def __init__(self, blocks: list[Block]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.sizes = [block.values.numel() for block in blocks]

    def eigenvalues(self) -> torch.Tensor:
        """All of them, in no order."""
        return torch.cat([block.values.flatten() for block in self._blocks()])

    def inverse_root(self, vectors: torch.Tensor, precision: float) -> torch.Tensor:
        """``(matrix + precision)^(-1/2)``, the symmetric root, times ``(k, n)`` vectors."""
        pieces = zip(self._blocks(), vectors.split_with_sizes(self.sizes, dim=1), strict=True)
        return torch.cat([block.inverse_root(piece, precision) for block, piece in pieces], dim=1)

    def _blocks(self) -> Iterator[Block]:
        return iter(cast("Iterable[Block]", self.blocks))


def best_precision(curvature: Curvature, weights: torch.Tensor) -> float:
    """The precision p of the prior N(0, 1/p) of highest marginal likelihood, by bisection.

    The evidence of Laplace's approximation has one stationary point in p, where the effective
    number of parameters, ``sum_i h_i / (h_i + p)`` over eigenvalues, is ``p |weights|^2``.
    """
    eigenvalues = curvature.eigenvalues().double()
    square_norm = weights.double().square().sum().item()
    low, high = math.log(1e-6), math.log(1e6)
    for _ in range(50):
        middle = (low + high) / 2
        p = math.exp(middle)
        rising = (eigenvalues / (eigenvalues + p)).sum().item() > p * square_norm
        low, high = (middle, high) if rising else (low, middle)
    return math.exp(low)


def curvature_of(network: nn.Module, problem: Problem, structure: str) -> Curvature:
    """The generalised Gauss-Newton matrix of the training data.

    Args:
        network: in eval mode; the parameters that require gradients are those of the matrix.
        problem: its likelihood is Categorical or Gaussian.
        structure: "full", "diag" or "kron": what of the matrix to keep.
    """
    library = _library()
    inputs, targets = problem.train.inputs, problem.train.targets
    with torch.no_grad():
        n_outputs = network(inputs[:1]).shape[-1]
    if isinstance(problem.likelihood, Categorical):
        kind = "classification"
    else:
        # The library's regression has unit noise in every output. Targets do not matter.
        kind, network = "regression", _Whitened(network)
        targets = torch.zeros(len(inputs), n_outputs).to(next(network.parameters()))
    backend = None if structure == "kron" else _per_example_backend(library)
    fitted = library.Laplace(network, kind, "all", structure, backend=backend)
    n_params = sum(p.numel() for p in network.parameters() if p.requires_grad)
    n_rows = max(min(_MAX_ROWS, _MAX_JACOBIAN // (n_outputs * n_params)), 1)
    try:
        fitted.fit(_Batches(inputs, targets, _MAX_ROWS if structure == "kron" else n_rows))
        return Curvature(list(_blocks_of(fitted.H, structure)))
    except (SystemExit, _LinAlgError) as error:  # the library would end the process
        raise DivergedError(
            f"the curvature ({structure}) must have eigenvalues, but they cannot be found; check "
            "the scale of the inputs, or use hessian diag"
        ) from error


def _blocks_of(matrix: Any, structure: str) -> Iterator[Block]:  # noqa: ANN401 - of the library
    if structure == "diag":
        yield Block(matrix.unsqueeze(1))
    elif structure == "full":
        values, vectors = torch.linalg.eigh(matrix)
        yield Block(values.clamp(min=0).unsqueeze(1), vectors)
    else:
        for values, vectors in zip(matrix.eigenvalues, matrix.eigenvectors, strict=True):
            right = values[1] if len(values) == 2 else torch.ones_like(values[0][:1])
            yield Block(torch.outer(values[0], right), *vectors)


class _Whitened(nn.Module):
    """Outputs of a Gaussian likelihood, scaled to a Fisher information of one each.

    The information of the mean is ``1 / sd^2``, that of the raw scale is
    ``2 (d sd / d raw)^2 / sd^2``; the scales count as constants.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Scaled outputs."""
        mean, raw = self.network(inputs).chunk(2, dim=-1)
        constant = raw.detach()
        sd = F.softplus(constant) + MIN_SCALE
        return torch.cat([mean / sd, raw * (math.sqrt(2) * constant.sigmoid() / sd)], dim=-1)


class _Batches:
    """What the library asks of a DataLoader."""

    def __init__(self, inputs: torch.Tensor, targets: torch.Tensor, size: int) -> None:
        self.dataset = inputs
        self._starts = range(0, len(inputs), size)
        self._pairs = [(inputs[i : i + size], targets[i : i + size]) for i in self._starts]

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return iter(self._pairs)


def _per_example_backend(library: Any) -> Any:  # noqa: ANN401 - classes of the library
    # its base has no types, as the library is optional
    class PerExample(library.curvature.GGNInterface):  # type: ignore[misc]
        """Jacobians example by example; the library's goes through the batch for each of them."""

        def jacobians(
            self, x: torch.Tensor, enable_backprop: bool = False
        ) -> tuple[torch.Tensor, torch.Tensor]:
            def outputs(
                params: dict[str, torch.Tensor], row: torch.Tensor
            ) -> tuple[torch.Tensor, torch.Tensor]:
                both = (params, self.buffers_dict)
                out = functional_call(self.model, both, (row.unsqueeze(0),)).squeeze(0)
                return out, out

            by_name, out = vmap(jacrev(outputs, has_aux=True), (None, 0))(self.params_dict, x)
            jacobians = torch.cat([part.flatten(2) for part in by_name.values()], dim=-1)
            return jacobians.detach(), out.detach()

    return PerExample
