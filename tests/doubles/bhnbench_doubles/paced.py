"""A task that notes when it begins and ends, and is as slow as a file says."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch

from bhnbench.contract import Checkpoint, Fit, Holdout, Metric, Outcome, Report, Task
from bhnbench.seeds import make_rng
from bhnbench.space import Int, setting
from bhnbench.specs import RunSpec
from bhnbench_doubles.tasks import SCORE, tiny_problem

LOG, PACE = "BHNBENCH_TEST_LOG", "BHNBENCH_TEST_PACE"  # name the two files


class Note(NamedTuple):
    """One line of the log."""

    what: str  # began, ended
    run: str  # which one: see `name_of`
    host: str
    time: float


@dataclass(frozen=True, kw_only=True)
class Paced(Task):
    """How near is the predicted number to 0.3? Takes ``n_steps`` times the seconds in a file."""

    metrics: ClassVar[tuple[Metric, ...]] = (SCORE,)

    n_steps: int = setting(5, "steps reported", valid=Int(1, 1000))

    def evaluate(
        self,
        fit: Fit,
        *,
        holdout: Holdout,
        rng: torch.Generator,
        report: Report,
        checkpoint: Checkpoint,
    ) -> Outcome:
        draw = _draw(rng)
        guess = fit(tiny_problem()).sample(torch.zeros(1, 1), 1, rng=rng).item()
        run = f"{holdout}:{guess!r}:{draw}"
        _note("began", run)
        closeness = -abs(guess - 0.3) - draw / 2**40
        for step in range(1, self.n_steps + 1):
            time.sleep(float(Path(os.environ[PACE]).read_text()))
            report(step, {"closeness": closeness * (1 + 1 / step)})
        _note("ended", run)
        return Outcome({"closeness": closeness})


def name_of(spec: RunSpec) -> str:
    """What a run of this task calls itself in the log."""
    guess = torch.tensor(spec.method.settings["x"]).item()
    return f"{spec.holdout}:{guess!r}:{_draw(make_rng(stream='task', seed=spec.seed))}"


def read_notes(log: Path) -> list[Note]:
    """The log, in the order of time."""
    lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
    notes = [Note(what, run, host, float(when)) for what, run, host, when in lines]
    return sorted(notes, key=lambda note: note.time)


def _draw(rng: torch.Generator) -> int:
    return int(torch.randint(2**31, (), generator=rng).item())


def _note(what: str, run: str) -> None:
    with Path(os.environ[LOG]).open("a") as file:  # appends whole lines
        file.write(f"{what} {run} {socket.gethostname()} {time.time():.6f}\n")
