"""What a job's environment tells it, which everybody who may see the jobs sees too."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import parse_qsl, urlsplit

from bhnbench.errors import JobError

PLACES = ("BHNBENCH_LEDGER", "MLFLOW_TRACKING_URI")
SECRET = re.compile(r"pass|token|secret|key|credential", re.IGNORECASE)


def job_environment(
    here: Mapping[str, str], *, home: str | None = None, cluster_env: bool = False
) -> dict[str, str]:
    """The variables that go along with a job.

    The addresses of ledger and MLflow server that are set here go along if they mean the same
    there: a file of this machine does not. An address with a secret in it must not.

    Args:
        here: the environment that the job is submitted from.
        home: the home on the cluster; without one its own BHNBENCH_HOME decides.
        cluster_env: send no address, since the cluster has its own.

    Raises:
        JobError: an address holds a password, or something like it.
    """
    sent = {"BHNBENCH_HOME": home} if home else {}
    for name in () if cluster_env else PLACES:
        address = here.get(name, "")
        if not _is_remote(address):
            continue
        if _holds_secret(address):
            raise JobError(
                f"{name} must not hold a password where a job is submitted, since everybody who "
                "may see the cluster's jobs would see it: set it in the environment that the "
                "cluster's head is started in and submit with --cluster-env, or leave the "
                "password to a file on the head (PostgreSQL: ~/.pgpass)"
            )
        sent[name] = address
    return sent


def _is_remote(address: str) -> bool:
    """Whether it names a server; sqlite:///file and folders do not."""
    try:
        return bool(urlsplit(address).netloc)
    except ValueError:
        return True  # cannot be read: then it may hold anything


def _holds_secret(address: str) -> bool:
    """A password; a name alone is one for a web server, where tokens stand in its place."""
    try:
        url = urlsplit(address)
        named = url.username if url.scheme in ("http", "https") else url.password
    except ValueError:
        return True
    queries = dict(parse_qsl(url.query, keep_blank_values=True))
    return bool(named or url.password) or any(SECRET.search(name) for name in queries)
