"""What a distillation is made of: teacher and student in one, and the reports of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from bhnbench.contract import Predictive, Report
from bhnbench.errors import ContractError


@dataclass(frozen=True)
class Distillate:
    """The student, and the teacher from which a later fit goes on."""

    teacher: Predictive
    student: Predictive

    def sample(
        self, inputs: torch.Tensor, n_samples: int, *, rng: torch.Generator
    ) -> torch.Tensor:
        """The student's."""
        return self.student.sample(inputs, n_samples, rng=rng)


def unpack(start: Predictive | None) -> tuple[Predictive | None, Predictive | None]:
    """The teacher and the student of an earlier fit."""
    if start is None:
        return None, None
    if not isinstance(start, Distillate):
        raise ContractError(
            "warm_start must be what an earlier fit of this method returned, but got a "
            f"{type(start).__name__}"
        )
    return start.teacher, start.student


@dataclass
class Relay:
    """Makes the reports of two fits, one after the other, those of one."""

    report: Report
    last_step: int = field(default=0, init=False)

    def hear_teacher(self, step: int, metrics: Mapping[str, float]) -> None:
        """Pass on what the teacher reports, under names of its own."""
        self.last_step = step
        self.report(step, {f"teacher_{name}": value for name, value in metrics.items()})

    def hear_student(self, step: int, metrics: Mapping[str, float]) -> None:
        """Pass on what the student reports, after the teacher."""
        self.report(self.last_step + step, metrics)
