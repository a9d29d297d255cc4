"""A sweep that everything happens to: driver, worker, host, network, database, MLflow, disk."""

from __future__ import annotations

import pytest

from tests.integration.cluster.services import find_postgres
from tests.integration.faults.campaign import Plan, run_campaign
from tests.integration.faults.kinds import KINDS

pytestmark = pytest.mark.slow


def test_one_fault_of_each_kind_loses_nothing_and_repeats_nothing() -> None:
    if find_postgres() is None:
        pytest.skip("needs PostgreSQL's programs: initdb and postgres")
    report = run_campaign(Plan(n_faults=len(KINDS), pause=1.0))
    told = "\n".join([*report.lines(), report.last_words])
    assert not report.broken, told
    assert [kind for kind, _ in report.faults] == report.planned, told
    print(told)
