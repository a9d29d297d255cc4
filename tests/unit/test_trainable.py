"""Where a run waits for the driver's word."""

from __future__ import annotations

from bhnbench.engine.trainable import _Execution
from bhnbench.runs import Point, RunResult


def test_a_run_waits_at_the_first_report_of_its_metric_past_a_rung() -> None:
    """Other reports have nothing that a rung could compare."""
    execution = _Execution({"milestones": [2, 6], "metric": "nll"})
    points: list[Point] = []
    waited = []
    for step in range(1, 9):
        points.append((step, {"loss": 0.1} | ({"nll": 0.2} if step % 3 == 0 else {})))
        execution._go_on.put(None)  # the driver would let it go on at once
        execution._listen(points, lambda: RunResult("running"))
        if not execution._reached.empty():
            execution._reached.get()
            waited.append(step)
    assert waited == [3, 6]
