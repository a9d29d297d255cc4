"""A whole sweep on a cluster of three hosts, and its configurations again on one machine.

    python -m tests.integration.cluster.whole sweeps/active_learning.yaml [KEY=VALUE ...]

Says how long each took and where the runs were, and whether both leaderboards are equal.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.integration.cluster.comparison import evaluations, frozen
from tests.integration.cluster.hosts import environment, shared_folder
from tests.integration.cluster.lab import BHNBENCH, Lab, open_lab
from tests.integration.cluster.ledgers import swept_studies


def on_one_machine(path: Path, overrides: list[str], home: Path) -> dict[str, Any]:
    """The leaderboard of a sweep on a Ray cluster of this machine alone."""
    command = [*BHNBENCH, "sweep", str(path), "--json", "--home", str(home)]
    done = subprocess.run(
        [*command, *sets(overrides)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    return parse(done)


def on_cluster(lab: Lab, path: Path, overrides: list[str]) -> dict[str, Any]:
    """The leaderboard of a sweep whose driver is on the cluster's head."""
    return parse(lab.bhnbench("sweep", path, "--json", *sets(overrides), timeout=3600))


def hosts_of_runs(lab: Lab) -> Counter[str]:
    """How many of the ledger's runs each host executed."""
    studies = swept_studies(lab.postgres.local_url("ledger"))
    return Counter(str(run.provenance["host"]) for study in studies for run in study.runs)


def sets(overrides: list[str]) -> list[str]:
    """As options."""
    return [word for override in overrides for word in ("--set", override)]


def parse(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """A command's JSON."""
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}:\n{done.stderr}")
    board: dict[str, Any] = json.loads(done.stdout)
    return board


def count_scores(board: Mapping[str, Any]) -> int:
    """Of all evaluation runs."""
    rows = [row for table in board["tasks"] for row in table["methods"]]
    return sum(len(seed["scores"]) for row in rows for seed in row["seeds"])


def main(path: Path, overrides: list[str]) -> int:
    """Compare; returns 0 where the leaderboards are equal."""
    started = time.monotonic()
    with shared_folder() as folder, open_lab(folder) as lab:
        print(f"cluster of {len(lab.cluster.workers)} workers up: {_since(started)}", flush=True)
        began = time.monotonic()
        board = on_cluster(lab, path, overrides)
        took, where = _since(began), dict(hosts_of_runs(lab))
        print(f"sweep on the cluster: {took}; runs: {where}", flush=True)
        print(lab.bhnbench("leaderboard").stdout, lab.bhnbench("sync").stdout, flush=True)
        again = frozen(path, overrides, board, folder)
        began = time.monotonic()
        alone = on_one_machine(again, [], folder / "alone")
        print(f"its configurations on one machine: {_since(began)}")
    equal = evaluations(board) == evaluations(alone)
    print(f"{count_scores(board)} scores; the leaderboards {'are equal' if equal else 'DIFFER'}")
    return int(not equal)


def _since(started: float) -> str:
    return f"{time.monotonic() - started:.0f} s"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).absolute(), sys.argv[2:]))
