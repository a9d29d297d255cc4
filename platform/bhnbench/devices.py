"""Problems and predictives where the run's device is not the CPU: tasks work on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from bhnbench.contract import Predictive, Problem, Prunable, Split

if TYPE_CHECKING:
    import torch


def missing(device: str) -> str | None:
    """Why the device cannot be used, or None."""
    import torch

    if device.startswith("cuda") and not torch.cuda.is_available():
        return (
            f"a run that asks for a GPU needs CUDA, but torch {torch.__version__} finds none; "
            "install a build of torch for the driver of this machine, or set resources.gpu: 0"
        )
    return None


def moved_to(problem: Problem, device: str) -> Problem:
    """The same problem with its tensors on ``device``."""

    def moved(split: Split) -> Split:
        return Split(split.inputs.to(device), split.targets.to(device))

    return replace(
        problem,
        train=moved(problem.train),
        validation=moved(problem.validation),
        prior=unwrapped(problem.prior),
    )


def unwrapped(predictive: Predictive | None) -> Predictive | None:
    """What the method itself returned."""
    return predictive.inner if isinstance(predictive, OnDevice) else predictive


@dataclass(frozen=True)
class OnDevice:
    """A predictive on an accelerator, for a task that works on the CPU."""

    inner: Predictive
    device: str

    def sample(
        self, inputs: torch.Tensor, n_samples: int, *, rng: torch.Generator
    ) -> torch.Tensor:
        """Outputs on the device of ``inputs``."""
        return self.inner.sample(inputs.to(self.device), n_samples, rng=rng).to(inputs.device)


class PrunableOnDevice(OnDevice):
    """One that knows which weights it does not need."""

    def sparsity(self) -> Mapping[str, float]:
        """Fraction of zero weights in each layer."""
        return cast("Prunable", self.inner).sparsity()

    def pruned(self) -> torch.nn.Module:
        """The network on the CPU."""
        return cast("Prunable", self.inner).pruned().cpu()


def on_device(predictive: Predictive, device: str) -> OnDevice:
    """What a task may be given."""
    kind = PrunableOnDevice if isinstance(predictive, Prunable) else OnDevice
    return kind(predictive, device)


def device_name(device: str) -> str:
    """For the record: the device and what it is."""
    if device == "cpu":
        return "cpu"
    import torch

    return f"{device}: {torch.cuda.get_device_name(device)}"
