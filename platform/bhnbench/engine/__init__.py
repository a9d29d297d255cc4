"""The engine: Ray Tune schedules, Optuna proposes, the ledger remembers.

What Ray is told by the environment is told here, before any module of the engine imports it: it
reads some of it once. What the user has set stays.
"""

from __future__ import annotations

import os
import secrets

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths in plugins stay right
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours to handle
    "TUNE_RESULT_BUFFER_LENGTH": "1",  # each result is answered by the next run
    "TUNE_GLOBAL_CHECKPOINT_S": str(10**9),  # the ledger remembers
    "TUNE_MAX_PENDING_TRIALS_PG": "64",  # the crew bounds how many workers wait for room
}
LOCAL = "local"  # the address of a cluster that the driver starts for itself


def ray_address() -> str:
    """The cluster to run on."""
    return os.environ.get("RAY_ADDRESS") or LOCAL


def _private_token() -> dict[str, str]:
    """A token of this process's own for a local cluster; never printed.

    Whoever reaches the ports of a cluster can run code in it, unless it asks for a token. Ray's
    own would lie in the user's home, the same for all clusters; this one only the driver and the
    processes that it starts know.
    """
    if ray_address() != LOCAL or any(name.startswith("RAY_AUTH_") for name in os.environ):
        return {}
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


for _name, _value in (SETTINGS | _private_token()).items():
    os.environ.setdefault(_name, _value)
