"""Sweeps whose runs land as a test says, to see how they are ranked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from bhnbench.contract import Outcome
from bhnbench.engine.coordinator import Coordinator, Work
from bhnbench.leaderboard.board import Leaderboard
from bhnbench.leaderboard.ranking import build_leaderboard
from bhnbench.ledger.ledger import Ledger
from bhnbench.ledger.records import SweepRecord
from bhnbench.runs import Cost, RunResult

EXAM = '''
"""A stranger's task, which nobody runs here: two metrics, two figures."""

from dataclasses import dataclass

from bhnbench.contract import Metric, Task
from bhnbench.space import setting


def draw_curve(outcomes):
    from matplotlib.figure import Figure

    figure = Figure()
    axes = figure.subplots()
    for label, runs in outcomes.items():
        for run in runs:
            axes.plot(run.tables["curve"]["step"], run.tables["curve"]["points"], label=label)
    return figure


@dataclass(frozen=True, kw_only=True)
class Exam(Task):
    metrics = (Metric("points", "maximize", "%"), Metric("errors", "minimize", ""))
    figures = {"curve": draw_curve}

    level: int = setting(1, "difficulty")

    def evaluate(self, fit, *, holdout, rng, report, checkpoint):
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Unpaintable(Exam):
    figures = {"curve": lambda outcomes: 1 / 0}
'''


@dataclass
class Bench:
    """A ledger with one sweep."""

    ledger: Ledger
    record: SweepRecord

    def run(self, answer: Callable[[str, Work], RunResult], limit: int = 1000) -> None:
        """Land every run as ``answer(method label, work)`` says."""
        coordinator = Coordinator(self.ledger, self.record)
        for _ in range(limit):
            work = coordinator.next_work()
            if work is None:
                return
            label = self.record.studies[work.study].spec.labels[1]
            coordinator.land(work, answer(label, work))

    def board(self, metric: str | None = None) -> Leaderboard:
        return build_leaderboard(self.ledger, self.record, metric)


def document(labels: str, seeds: int, *, task: str = "exam", search: str = "") -> str:
    """Methods that differ: in x, or in its range where it is searched."""
    fixed = ", parameters: {{x: {{min: 0.0, max: 0.{}}}}}" if search else ", x: 0.{}"
    methods = "\n".join(
        f"  - {{name: constant, label: {label}{fixed.format(i + 1)}}}"
        for i, label in enumerate(labels)
    )
    evaluate = f"evaluate: {{seeds: {seeds}}}\n"
    return f"name: finals\ntasks: [{task}]\nmethods:\n{methods}\n{search}{evaluate}"


def done(points: float, seconds: float = 1.0, memory: float | None = 100.0) -> RunResult:
    steps = np.array([1.0, 2.0])
    curve = {"step": steps, "points": np.array([points / 2, np.nan])}
    scores = {"points": points, "errors": 100 - points}
    return RunResult(
        "done", Outcome(scores, {"curve": curve}), cost=Cost(seconds, seconds / 2, memory)
    )


DIVERGED = RunResult("failed", failure="diverged", message="loss is nan\nat step 3")


def scores_of(table: Mapping[str, list[float | None]]) -> Callable[[str, Work], RunResult]:
    """Answers from ``{label: scores by seed}``; None diverges."""

    def answer(label: str, work: Work) -> RunResult:
        points = table[label][work.spec.seed - 1]
        return DIVERGED if points is None else done(points)

    return answer
