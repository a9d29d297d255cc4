"""A sweep on a cluster of three hosts gives the numbers that it gives on one machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.cluster.comparison import numbers
from tests.integration.cluster.hosts import shared_folder
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
