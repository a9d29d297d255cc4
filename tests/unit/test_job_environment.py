"""What a job is told: addresses of servers, and never a secret."""

from __future__ import annotations

import pytest

from bhnbench.engine.environment import job_environment
from bhnbench.errors import JobError

OPEN = {
    "BHNBENCH_LEDGER": "postgresql+psycopg://lab@db:5432/runs?options=-csearch_path%3Dours",
    "MLFLOW_TRACKING_URI": "http://mlflow:5000",
}


def test_servers_go_along_and_nothing_else() -> None:
    here = OPEN | {"RAY_AUTH_TOKEN": "t", "MLFLOW_TRACKING_PASSWORD": "p", "BHNBENCH_HOME": "/me"}
    assert job_environment(here) == OPEN
    assert job_environment(here, home="/lab") == OPEN | {"BHNBENCH_HOME": "/lab"}
    assert job_environment(here, home="/lab", cluster_env=True) == {"BHNBENCH_HOME": "/lab"}


@pytest.mark.parametrize("address", ["", "sqlite:////home/me/l.db", "sqlite:///l.db", "./mlruns"])
def test_files_of_this_machine_stay(address: str) -> None:
    assert job_environment({"BHNBENCH_LEDGER": address, "MLFLOW_TRACKING_URI": address}) == {}


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("BHNBENCH_LEDGER", "postgresql+psycopg://lab:hush@db/runs"),
        ("BHNBENCH_LEDGER", "postgresql+psycopg://db/runs?user=lab&password=hush"),
        ("BHNBENCH_LEDGER", "postgresql+psycopg://lab@db/runs?sslpassword=hush"),
        ("MLFLOW_TRACKING_URI", "https://me:hush@mlflow"),
        ("MLFLOW_TRACKING_URI", "https://hush@mlflow"),
        ("MLFLOW_TRACKING_URI", "https://mlflow/?api_key=hush"),
        ("MLFLOW_TRACKING_URI", "https://[hush"),
    ],
)
def test_an_address_with_a_secret_is_refused_without_telling_it(name: str, address: str) -> None:
    with pytest.raises(JobError, match=f"{name} must not hold a password") as caught:
        job_environment({name: address})
    assert "hush" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert job_environment({name: address}, cluster_env=True) == {}
