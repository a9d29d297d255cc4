"""What `bhnbench doctor` asks of MLflow: is it there, of this version, and closed to strangers?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from bhnbench.findings import Check, InTurn, Verdict, failed, ok
from bhnbench.home import Home
from bhnbench.tracking import database_diagnosis, server_diagnosis
from bhnbench.tracking.addresses import LATER, parse, shown

GROUP = "MLflow"
SECONDS = 30  # of one check: an import, and a server that is slow
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
Look = Callable[[str], Verdict]


def checks(home: Home) -> Iterator[Check]:
    """Of a server more than of a database, which the ledger's own rules cover."""
    uri = home.tracking_uri
    looks: dict[str, Look] = {"address": address}
    is_server = uri.startswith(("http://", "https://"))
    looks |= server_diagnosis.LOOKS if is_server else database_diagnosis.LOOKS
    turn = InTurn()
    for name, look in looks.items():
        yield Check(GROUP, name, partial(turn.look, name, partial(look, uri)), seconds=SECONDS)


def address(uri: str) -> Verdict:
    """A server, or a database whose driver is installed."""
    if uri.startswith(("http://", "https://")):
        return ok(shown(uri))
    url = parse(uri)
    if url is None or url.get_backend_name() not in DATABASES:
        fix = "name a server (http://...) or a database (sqlite:///FILE) in $MLFLOW_TRACKING_URI"
        return failed(f"{shown(uri)}: is neither a server nor a database", fix)
    try:
        url.get_dialect().import_dbapi()
    except ModuleNotFoundError as error:
        fix = f"install it, or name another address in $MLFLOW_TRACKING_URI; {LATER}"
        return failed(f"{shown(uri)}: needs the Python package {error.name}", fix)
    return ok(shown(uri))
