"""A sweep that everything happens to: driver, worker, host, network, database, MLflow, disk."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.integration.cluster.services import find_postgres
from tests.integration.faults.audit import Change
from tests.integration.faults.campaign import Plan, Report, run_campaign
from tests.integration.faults.kinds import KINDS
from tests.integration.faults.verdict import Evidence, laws

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def report() -> Report:
    if find_postgres() is None:
        pytest.skip("needs PostgreSQL's programs: initdb and postgres")
    return run_campaign(Plan(n_faults=len(KINDS), pause=1.0))


def test_one_fault_of_each_kind_loses_nothing_and_repeats_nothing(report: Report) -> None:
    told = "\n".join([*report.lines(), report.last_words])
    print(told)
    assert not report.broken, told
    assert [kind for kind, _ in report.faults] == report.planned, told


def test_the_verdict_would_have_seen_it(report: Report) -> None:
    """Each law is broken once, by doctored evidence."""
    found = report.evidence
    assert found is not None
    study, *others = found.studies
    first, *runs = study.trial_runs
    lost = replace(study, trial_runs=[replace(first, state="failed", scores={}), *runs])
    other = replace(study, trials=study.trials[::-1])
    late = found.notes[0]._replace(what="began", time=9e12)
    again = [*found.changes[first.key], Change(9e12, "running", "done")]
    assert broken(replace(found, studies=[lost, *others]))[0] == "every planned run is done"
    assert broken(replace(found, changes=found.changes | {first.key: again})) == [
        "no run is done twice"
    ]
    assert broken(replace(found, notes=[*found.notes, *[late] * 9])) == [
        "no run begins more often than it was handed out"
    ]
    for shown in (found.shown[1:], [*found.shown, found.shown[0]]):
        assert broken(replace(found, shown=shown)) == ["MLflow shows what the ledger has"]
    assert broken(replace(found, calm=[other, *others])) == [
        "the search tried what it tries on a calm machine"
    ]


def broken(evidence: Evidence) -> list[str]:
    return [law.text for law in laws(evidence) if law.broken]
