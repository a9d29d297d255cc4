"""What a Ray cluster says of itself, or what Ray would find here; asked in a process of its own.

Ray ends the process where a token file cannot be read, and waits for most of a minute where a
cluster does not answer: this process can be lost, and can be stopped.

Usage: ``python -m bhnbench.engine.probe [HOST:PORT | auto]``; prints one line of JSON.
"""

from __future__ import annotations

import json
import signal
import sys
from typing import Any

TIMEOUT = 5  # seconds a question
ANSWER_SECONDS = 10  # from the end of the imports; then the system ends this process


def ask(address: str) -> dict[str, Any]:
    """Versions, nodes and dashboard of a cluster; joins nothing."""
    from ray._private.services import canonicalize_bootstrap_address_or_die
    from ray._raylet import GcsClient  # type: ignore[attr-defined]  # compiled
    from ray.exceptions import AuthenticationError

    signal.alarm(ANSWER_SECONDS)
    try:
        gcs = GcsClient(address=canonicalize_bootstrap_address_or_die(address))
        metadata = json.loads(
            gcs.internal_kv_get(b"CLUSTER_METADATA", b"cluster", timeout=TIMEOUT)
        )
        dashboard = gcs.internal_kv_get(b"dashboard", b"dashboard", timeout=TIMEOUT)
        nodes = gcs.get_all_node_info(timeout=TIMEOUT).values()
    except AuthenticationError:
        return {"refused": True}
    return {
        "ray": metadata["ray_version"],
        "python": metadata["python_version"],
        "dashboard": (dashboard or b"").decode(),
        "nodes": [
            {"address": node.node_manager_address, "resources": dict(node.resources_total)}
            for node in nodes
            if node.state == 0  # alive
        ],
    }


def look_here() -> dict[str, Any]:
    """What a cluster on this machine would have."""
    import ray
    from ray._private.resource_and_label_spec import ResourceAndLabelSpec

    spec = ResourceAndLabelSpec()
    spec.resolve(is_head=True, node_ip_address="127.0.0.1")
    has = spec.to_resource_dict()  # type: ignore[no-untyped-call]  # Ray's
    return {"ray": ray.__version__, "nodes": [{"address": "127.0.0.1", "resources": has}]}


if __name__ == "__main__":
    found = ask(sys.argv[1]) if len(sys.argv) > 1 else look_here()
    print(json.dumps(found))
