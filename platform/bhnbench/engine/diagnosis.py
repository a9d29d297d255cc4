"""What `bhnbench doctor` asks of Ray: a cluster that answers, fits the runs and is closed."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from bhnbench.engine import LOCAL, facts, ray_address
from bhnbench.engine.facts import Facts, RefusedError, UnreachedError
from bhnbench.engine.temp_folder import temp_folder
from bhnbench.errors import ResourceError
from bhnbench.findings import Check, InTurn, Verdict, failed, ok, skipped, warning
from bhnbench.sweep.execution import Resources
from bhnbench.words import counted

GROUP = "Ray"
SECONDS = 70  # of one check; a probe and a connection have shorter limits of their own
OUTSIDE = "bhnbench submit FILE --address http://HEAD:8265"


def checks(
    requests: Callable[[], Iterable[Resources]], urls: Mapping[str, str]
) -> Iterator[Check]:
    """Of the cluster that a sweep would start, or of the one that RAY_ADDRESS names.

    Args:
        requests: what the runs of the sweep ask for; called when that is looked at.
        urls: where ledger and MLflow are, by the variable that says so.
    """
    cluster = _Cluster(ray_address(), requests, urls)
    looks: dict[str, Callable[[], Verdict]] = {"address": cluster.named}
    if cluster.address == LOCAL:
        looks |= {"temp folder": temp_folder}
    else:
        looks |= {"token": cluster.token, "connection": cluster.connection}
        looks |= {"versions": cluster.versions, "protection": cluster.protection}
        looks |= {"this host": cluster.this_host, "shared data": cluster.shared_data}
    looks |= {"resources": cluster.resources}
    turn = InTurn()
    for name, look in looks.items():
        yield Check(GROUP, name, partial(turn.look, name, look), seconds=SECONDS)


class _Cluster:
    """The looks at one cluster; the first that needs to know it asks it."""

    def __init__(
        self,
        address: str,
        requests: Callable[[], Iterable[Resources]],
        urls: Mapping[str, str],
    ) -> None:
        self.address = address
        self._requests = requests
        self._urls = urls
        self._by_http = address.startswith(("http://", "https://"))
        self._facts: Facts | None = None

    def named(self) -> Verdict:
        """An address of a kind that a sweep takes."""
        if self.address == LOCAL:
            return ok("none: a sweep starts a cluster of its own on this machine")
        if self.address == "auto" or self._by_http:
            return ok(self.address)
        if re.fullmatch(r".+:\d+", self.address) and "://" not in self.address:
            return ok(self.address)
        fix = f"HOST:PORT or auto on a node of the cluster; from outside: {OUTSIDE}"
        return failed(f"{self.address}: is no address that a sweep takes", fix)

    def token(self) -> Verdict:
        """What we show to clusters; Ray ends the process where it cannot read it."""
        try:
            ours = facts.token()
        except OSError as error:
            path = os.environ.get("RAY_AUTH_TOKEN_PATH")
            return failed(f"{path}: {error.strerror}", "copy the cluster's token there, mode 600")
        mode = os.environ.get("RAY_AUTH_MODE")
        if mode == "token" and not ours:
            fix = "set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the cluster's token"
            return failed("RAY_AUTH_MODE=token, but there is no token", fix)
        if ours and mode != "token" and not self._by_http:
            return failed("there is one, but it is not shown", "export RAY_AUTH_MODE=token")
        return ok("shown to the cluster") if ours else skipped("none is set")

    def connection(self) -> Verdict:
        """It answers, and takes our token."""
        try:
            ask = facts.of_dashboard if self._by_http else facts.of_port
            self._facts = ask(self.address)
        except RefusedError:
            fix = (
                "export RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH, a file of the cluster's token"
            )
            return failed("the cluster asks for a token, and ours is missing or wrong", fix)
        except UnreachedError as error:
            fix = "start the cluster (ray start --head), or correct --address or $RAY_ADDRESS"
            return failed(f"no answer: {error}", fix)
        found = self._facts
        hosts = counted(len(found.addresses), "host")
        return ok(f"{hosts}, {found.total('CPU'):g} CPU, {found.total('GPU'):g} GPU")

    def versions(self) -> Verdict:
        """Ray joins no cluster of another version of Ray or Python."""
        from importlib.metadata import version
        from platform import python_version

        here, there = {"Ray": version("ray")}, {"Ray": self._known.ray}
        if self._known.python:
            here["Python"], there["Python"] = python_version(), self._known.python
        if here == there:
            return ok(_listed(here))
        fix = "take the same environment or image on every host of the cluster, and here"
        return failed(f"{_listed(there)} there, but {_listed(here)} here", fix)

    def protection(self) -> Verdict:
        """Whoever reaches a cluster can run code in it, unless it asks for a token."""
        dashboard = self._known.dashboard
        asked = facts.asks_for_token(dashboard) if dashboard else None
        if asked or (asked is None and os.environ.get("RAY_AUTH_MODE") == "token"):
            return ok("the cluster asks for a token")
        doors = " and ".join(dict.fromkeys(filter(None, [dashboard, self.address])))
        found = (
            f"whoever reaches {doors} may run code there (CVE-2023-48022): no token is asked for"
        )
        fix = (
            "export RAY_AUTH_MODE=token and a token (ray get-auth-token --generate) on every host"
        )
        return warning(found, f"{fix}, and start the cluster anew")

    def this_host(self) -> Verdict:
        """A driver joins the cluster by way of its own host."""
        if self._by_http:
            return skipped("jobs are submitted: the driver runs on the cluster")
        ours = facts.own_addresses(self._known.addresses)
        if ours:
            return ok(f"{ours[0]} is a node of the cluster")
        nodes = ", ".join(self._known.addresses)
        fix = f"run the sweep on one of them; from here: {OUTSIDE}"
        return failed(f"no node of the cluster, which has {nodes}", fix)

    def shared_data(self) -> Verdict:
        """Ledger and MLflow must be found from whichever host a driver runs on."""
        if len(self._known.addresses) < 2 and not self._by_http:
            return skipped("the cluster has one host")
        files = [name for name, url in self._urls.items() if url.startswith("sqlite")]
        near = r"://([^/@]*@)?(localhost|127\.[\d.]+|\[::1\])([:/]|$)"
        loops = [name for name, url in self._urls.items() if re.search(near, url)]
        if not files and not loops:
            return ok(f"{' and '.join(self._urls)} lead to the same place from any host")
        reasons = [f"{name} is a file of one host" for name in files]
        reasons += [f"{name} is another machine on each host (localhost)" for name in loops]
        fix = f"set {' and '.join(files + loops)} to servers that every host reaches by that name"
        return warning("; ".join(reasons), fix)

    def resources(self) -> Verdict:
        """Every run of the sweep fits some node."""
        from bhnbench.engine.cluster import Seen

        if self.address == LOCAL:
            self._facts = facts.of_this_machine()
        requests = list(dict.fromkeys(self._requests()))
        nodes = Seen([node["resources"] for node in self._known.nodes])
        total = f"{self._known.total('CPU'):g} CPU, {self._known.total('GPU'):g} GPU"
        if not requests:
            return ok(total)
        try:
            nodes.check(requests)
        except ResourceError as error:
            found, _, fix = str(error).rpartition("; ")
            return failed(found, fix)
        fits = min(nodes.slots(request) for request in requests)
        return ok(f"{total}: {counted(fits, 'run')} at a time")

    @property
    def _known(self) -> Facts:
        assert self._facts is not None, "asked for in turn"
        return self._facts


def _listed(versions: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())
