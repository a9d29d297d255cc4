"""A run that is lost with its worker goes on from its progress in an object store."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bhnbench.ledger.ledger import Ledger
from bhnbench.storage import place_at
from bhnbench.sweep.document import read_sweep

pytestmark = pytest.mark.slow

SWEEP = """\
name: rounds
tasks: [{{name: rounds, breaks: "{breaks}", kills: true, seconds: 3, n_rounds: 3}}]
methods: [constant]
evaluate: {{seeds: 1}}
storage: {storage}
"""


def test_a_run_that_was_lost_does_the_rest_only(
    tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BHNBENCH_TEST_LOG", str(tmp_path / "rounds.log"))
    path, home = tmp_path / "sweep.yaml", tmp_path / "home"
    path.write_text(SWEEP.format(breaks=tmp_path / "broken", storage=s3))
    command = [sys.executable, "-m", "bhnbench.cli", "sweep", str(path), "--home", str(home)]
    subprocess.run(command, check=True, timeout=240)
    assert (tmp_path / "broken").exists()  # round 2 killed its worker
    rounds = (tmp_path / "rounds.log").read_text().splitlines()
    assert rounds == ["round 1", "round 2", "round 3"]
    spec = read_sweep(path).studies[0].run({}, "evaluate", 1)
    assert place_at(f"{s3}/{spec.key}.pt").read() is None
    assert not (home / "checkpoints").exists()
    with Ledger(f"sqlite:///{home / 'ledger.db'}") as ledger:
        run = ledger.runs([spec.key])[spec.key]
    assert run.state == "done"
    assert run.cost.seconds > 8.5  # all three rounds, whichever worker did them
