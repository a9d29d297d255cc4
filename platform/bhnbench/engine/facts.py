"""What is known of a Ray cluster without joining it: from its port, or from its dashboard."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bhnbench.words import one_line

PROBE_SECONDS = 60  # most of it for the import of Ray from a slow disk
HTTP_SECONDS = 5


class UnreachedError(Exception):
    """The cluster cannot be asked; says why."""


class RefusedError(Exception):
    """The cluster wants another token."""


@dataclass(frozen=True)
class Facts:
    """A cluster; "" where something is not known."""

    ray: str
    python: str
    dashboard: str  # host:port
    nodes: Sequence[Mapping[str, Any]]  # address and resources of each

    @property
    def addresses(self) -> list[str]:
        """One a host."""
        return sorted({node["address"] for node in self.nodes})

    def total(self, kind: str) -> float:
        """Of all nodes together."""
        return float(sum(node["resources"].get(kind, 0) for node in self.nodes))


def of_this_machine() -> Facts:
    """The cluster that a sweep would start here."""
    content = _probe()
    return Facts(content["ray"], "", "", content["nodes"])


def of_port(address: str) -> Facts:
    """A cluster by ``host:port``.

    Raises:
        RefusedError: its token is another.
        UnreachedError: it does not answer.
    """
    if address != "auto":
        _knock(address)
    content = _probe(address)
    if content.get("refused"):
        raise RefusedError
    return Facts(content["ray"], content["python"], content["dashboard"], content["nodes"])


def of_dashboard(url: str) -> Facts:
    """A cluster by ``http://host:port``, as jobs are submitted to it.

    Raises:
        RefusedError: its token is another.
        UnreachedError: it does not answer.
    """
    version = _get_json(url, "/api/version")
    nodes = _get_json(url, "/nodes?view=summary")["data"]["summary"]
    return Facts(
        version["ray_version"],
        "",
        url.partition("://")[2].rstrip("/"),
        [
            {"address": node["ip"], "resources": node["raylet"].get("resourcesTotal", {})}
            for node in nodes
            if node["raylet"].get("state") == "ALIVE"
        ],
    )


def token() -> str | None:
    """What Ray would show, from where it looks; None where it has none.

    Raises:
        OSError: it is said to be in a file that cannot be read.
    """
    given = os.environ.get("RAY_AUTH_TOKEN")
    if given:
        return given
    path = os.environ.get("RAY_AUTH_TOKEN_PATH")
    file = Path(path) if path else Path.home() / ".ray" / "auth_token"
    if not path and not file.exists():
        return None
    return file.read_text(encoding="utf-8").strip() or None


def asks_for_token(dashboard: str) -> bool | None:
    """Whether a cluster does, by its dashboard's own word; None where there is none."""
    import requests

    try:
        answer = requests.get(f"http://{dashboard}/api/authentication_mode", timeout=HTTP_SECONDS)
        return bool(answer.json()["authentication_mode"] == "token") if answer.ok else None
    except (requests.RequestException, KeyError, TypeError):
        return None


def own_addresses(addresses: Iterable[str]) -> list[str]:
    """Those of the addresses that are this machine's."""
    ours = []
    for address in addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind((address, 0))  # possible to this machine's own alone
            except OSError:
                continue
            ours.append(address)
    return ours


def _get_json(url: str, path: str) -> Any:  # noqa: ANN401 - JSON
    import requests

    ours = token()
    headers = {"Authorization": f"Bearer {ours}"} if ours else {}
    try:
        answer = requests.get(url.rstrip("/") + path, headers=headers, timeout=HTTP_SECONDS)
    except requests.RequestException as error:
        raise UnreachedError(_cause(error)) from None
    if answer.status_code in (401, 403):
        raise RefusedError
    if not answer.ok:
        raise UnreachedError(f"it answers {answer.status_code} to {path}")
    return answer.json()


def _knock(address: str) -> None:
    """Ray itself would wait for most of a minute."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=HTTP_SECONDS).close()
    except OSError as error:
        raise UnreachedError(error.strerror or one_line(error)) from None


def _cause(error: Exception) -> str:
    known = ("Connection refused", "timed out", "No route to host", "Name or service not known")
    return next((words for words in known if words in str(error)), one_line(error)[:200])


def _probe(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "bhnbench.engine.probe", *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    try:
        done = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UnreachedError(f"no answer in {PROBE_SECONDS} s") from None
    if done.returncode == -signal.SIGALRM:
        raise UnreachedError("its port is open, but nothing answers there as Ray does")
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        said = done.stderr.strip().splitlines()
        last = next((line for line in reversed(said) if ": " in line), "the probe said nothing")
        raise UnreachedError(one_line(last)[:300])
    content: dict[str, Any] = json.loads(lines[-1])
    return content
