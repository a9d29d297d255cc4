"""An MLflow server: lets us in, keeps artifacts, and does not let everybody in."""

from __future__ import annotations

import os
import socket
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from bhnbench.findings import Verdict, failed, ok, skipped, warning
from bhnbench.tracking.addresses import LATER, reason

if TYPE_CHECKING:
    from requests import PreparedRequest, Response

ANSWER_SECONDS = 5
SEARCH = "/api/2.0/mlflow/experiments/search?max_results=1&order_by=creation_time+DESC"
PACKAGES = {"s3": "boto3", "gs": "google-cloud-storage", "abfss": "azure-storage-file-datalake"}
MODULES = {"s3": "boto3", "gs": "google.cloud.storage", "abfss": "azure.storage.filedatalake"}
STRANGE_HOST = "bhnbench-doctor.invalid"


def connection(uri: str) -> Verdict:
    """Somebody answers there."""
    from requests import RequestException

    try:
        answer = _get(uri, "/health")
    except RequestException as error:
        fix = f"start it, or correct $MLFLOW_TRACKING_URI; {LATER}"
        return failed(f"no answer: {_cause(error, uri)}", fix)
    if answer.ok:
        return ok("the server answers")
    fix = "$MLFLOW_TRACKING_URI must name an MLflow server, with its prefix if it has one"
    return failed(f"the server answers {answer.status_code} to /health", fix)


def access(uri: str) -> Verdict:
    """It takes our name for it, and us."""
    answer = _get(uri, SEARCH, headers=_token())
    if answer.ok:
        return ok("allowed")
    if "Host header" in answer.text:
        host = urlsplit(uri).netloc.rpartition("@")[2]
        found = f"the server does not go by the name of {host}"
        return failed(found, f"start it with --allowed-hosts {host} (and whatever it has now)")
    if answer.status_code in (401, 403):
        fix = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        return failed(f"the server refuses us ({answer.status_code})", fix)
    found = f"the server answers {answer.status_code} to a search for experiments"
    return failed(found, f"see the server's log; {LATER}")


def versions(uri: str) -> Verdict:
    """MLflow keeps its interface within a major version."""
    here = version("mlflow")
    there = _get(uri, "/version").text.strip()
    if there.partition(".")[0] == here.partition(".")[0]:
        return ok(f"{there} there, {here} here")
    fix = f"take the same major version on both sides: pip install 'mlflow=={there}'"
    return warning(f"{there[:30]} there, but {here} here", fix)


def artifacts(uri: str) -> Verdict:
    """Figures must reach the server, not a folder of the driver's."""
    experiments = _get(uri, SEARCH, headers=_token()).json().get("experiments")
    if not experiments:
        return skipped("the server has no experiment yet that would show where they go")
    place = experiments[0]["artifact_location"]
    scheme = urlsplit(place).scheme
    if scheme == "mlflow-artifacts":
        return ok("sent to the server")
    if scheme in MODULES:
        if find_spec(MODULES[scheme].partition(".")[0]) is not None:
            return ok(f"written to {scheme}: by the driver")
        return failed(
            f"go to {scheme}:, for which a package is missing", f"pip install {PACKAGES[scheme]}"
        )
    found = f"go to {place}, a folder of whichever machine writes them"
    fix = "start the server with --serve-artifacts and --artifacts-destination"
    return warning(found, fix)


def protection(uri: str) -> Verdict:
    """A server that can be reached from outside asks for passwords, and minds its own name."""
    anonymous = _get(uri, SEARCH, anonymous=True).ok
    outside = _reached_from_outside(uri)
    faults, fixes = [], []
    if outside and anonymous:
        faults.append(f"anybody who reaches {outside} may read, change and delete all of it")
        fixes.append(
            "start it with --app-name basic-auth or behind a proxy that asks for a password"
        )
    if anonymous and _get(uri, SEARCH, anonymous=True, headers={"Host": STRANGE_HOST}).ok:
        faults.append(
            "it answers to any name, so that web pages open in a browser here may use it"
        )
        fixes.append(f"start it with --allowed-hosts {urlsplit(uri).netloc.rpartition('@')[2]}")
    if faults:
        return warning("; ".join(faults), "; and ".join(fixes))
    return ok("asks for a password" if not anonymous else "open to this machine alone")


def _get(
    uri: str, path: str, *, anonymous: bool = False, headers: dict[str, str] | None = None
) -> Response:
    """Ask the server; ``anonymous`` without passwords, those of ~/.netrc included."""
    import requests

    if anonymous:
        parts = urlsplit(uri)
        uri = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    user = os.environ.get("MLFLOW_TRACKING_USERNAME")
    password = os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
    verify = os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() not in ("true", "1")
    auth = _nobody if anonymous else (user, password) if user else None
    url = uri.partition("?")[0].rstrip("/") + path
    bundle = os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or verify
    return requests.get(url, timeout=ANSWER_SECONDS, auth=auth, verify=bundle, headers=headers)


def _token() -> dict[str, str]:
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    return {"Authorization": f"Bearer {token}"} if token else {}


def _nobody(request: PreparedRequest) -> PreparedRequest:
    return request


def _cause(error: BaseException, uri: str) -> str:
    """The operating system's words, found within those of two libraries."""
    words = reason(error, uri)
    for known in ("Connection refused", "timed out", "No route to host", "resolve"):
        if known in str(error):
            return known if known != "resolve" else "its name cannot be resolved"
    return words


def _reached_from_outside(uri: str) -> str:
    """An address at which others may reach the server, or nothing."""
    parts = urlsplit(uri)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    addresses = {str(info[4][0]) for info in socket.getaddrinfo(parts.hostname, port)}
    if not all(address.startswith("127.") or address == "::1" for address in addresses):
        return f"{parts.hostname}:{port}"
    own = _own_address()
    if own is None:
        return ""
    try:
        with socket.create_connection((own, port), timeout=1):
            return f"{own}:{port}"
    except OSError:
        return ""


def _own_address() -> str | None:
    """This machine's address in its network; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address for documentation
        except OSError:
            return None
        return str(probe.getsockname()[0])


LOOKS = {
    "connection": connection,
    "access": access,
    "version": versions,
    "artifacts": artifacts,
    "protection": protection,
}
