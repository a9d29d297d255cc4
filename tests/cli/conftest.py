"""A home to read from."""

from __future__ import annotations

from pathlib import Path

import pytest
from bhnbench_doubles.command_line import DOCUMENT, SUSPECT

from bhnbench.contract import Outcome
from bhnbench.engine.coordinator import Coordinator
from bhnbench.ledger.ledger import Ledger
from bhnbench.runs import Cost, RunResult
from bhnbench.sweep.document import read_sweep


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a finished sweep, made without Ray."""
    (tmp_path / "sweep.yaml").write_text(DOCUMENT)
    home = tmp_path / "home"
    with Ledger(f"sqlite:///{home / 'ledger.db'}", create=True) as ledger:
        record = ledger.record_sweep(read_sweep(tmp_path / "sweep.yaml"))
        coordinator = Coordinator(ledger, record)
        while (work := coordinator.next_work()) is not None:
            if work.spec.method.name == "failing":
                result = RunResult("failed", failure="diverged", message="loss is nan at step 3")
            else:
                x = float(work.spec.method.settings["x"] or 0)
                result = RunResult(
                    "done",
                    outcome=Outcome({"closeness": -abs(x - 0.3) + 0.01 * work.spec.seed}),
                    points=[(step, {"closeness": -1 / step}) for step in range(1, 31)],
                    warnings=SUSPECT if x == 0.1 and work.spec.seed == 2 else (),
                    cost=Cost(1.5, 0.5, 100.0),
                    provenance={"packages": {"torch": "2.13"}, "n_threads": 1},
                )
            coordinator.land(work, result)
    return home
