"""A sweep on a cluster of three hosts gives the numbers that it gives on one machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine, inspect, text
from sqlalchemy.pool import NullPool

from tests.integration.cluster.comparison import numbers
from tests.integration.cluster.hosts import shared_folder, wait_until
from tests.integration.cluster.lab import Lab, open_lab
from tests.integration.cluster.services import find_postgres
from tests.integration.cluster.whole import hosts_of_runs, on_cluster, on_one_machine, sets

pytestmark = pytest.mark.slow

SWEEP = Path(__file__).parents[2] / "sweeps" / "active_learning.yaml"
SMALL = [  # so few trials are the same whichever run ends first
    "methods=[maximum_likelihood, mc_dropout]",
    "tasks.0.n_rounds=2",
    "tasks.0.epochs=20",
    "search.trials=3",
    "search.early_terminate=null",
    "evaluate.seeds=2",
]
SHORT = """\
name: short
tasks: [{name: guess, n_steps: 5, seconds: 0.2}]
methods: [constant]
evaluate: {seeds: 90}
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    if find_postgres() is None:
        pytest.skip("needs PostgreSQL's programs: initdb and postgres")
    with shared_folder() as folder, open_lab(folder) as lab:
        yield lab


def test_the_leaderboard_of_a_cluster_is_that_of_one_machine(lab: Lab, tmp_path: Path) -> None:
    board = on_cluster(lab, SWEEP, SMALL)
    assert numbers(board) == numbers(on_one_machine(SWEEP, SMALL, tmp_path / "alone"))
    assert [len(row["seeds"]) for row in board["tasks"][0]["methods"]] == [2, 2]
    if lab.cluster.network.may_be_cut:
        assert set(hosts_of_runs(lab)) == {"worker1", "worker2"}
    # The MLflow server has heard everything, and nothing is left to do.
    assert "0 sent, 12 there already" in lab.bhnbench("sync").stdout
    assert "0 runs executed" in lab.bhnbench("sweep", SWEEP, *sets(SMALL)).stderr


def test_a_node_that_joins_gets_runs_however_short_they_are(lab: Lab, tmp_path: Path) -> None:
    """With Tune's reuse of actors a late host would get none of these."""
    path = lab.folder / "short.yaml"
    path.write_text(SHORT)
    process = lab.start_bhnbench("sweep", path, log=lab.folder / "short.log")
    wait_until(lambda: sum(done_by(lab, "guess").values()) >= 6, 120, "six runs")
    lab.cluster.start_worker("worker3")
    wait_until(lambda: done_by(lab, "guess")["worker3"] >= 2, 120, "two runs on the new node")
    assert process.wait(240) == 0
    assert sum(done_by(lab, "guess").values()) == 90


def done_by(lab: Lab, task: str) -> Counter[str]:
    """How many of a task's runs each host has done so far."""
    engine = create_engine(lab.postgres.local_url("ledger"), poolclass=NullPool)
    query = text("SELECT provenance FROM runs WHERE state = 'done' AND task_name = :task")
    with engine.connect() as connection:
        found = connection.scalars(query, {"task": task}) if _has_runs(connection) else ()
        return Counter(str(provenance["host"]) for provenance in found)


def _has_runs(connection: Connection) -> bool:
    return inspect(connection).has_table("runs")
