"""The cluster that a sweep starts on this machine: whom it takes in, by real Ray."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

JOIN = """
import ray, sys
try:
    ray.init(sys.argv[1], logging_level=50)
    print("joined")
except ConnectionError:
    print("refused")
"""
CLUSTER = """
import json, os, subprocess, sys
from pathlib import Path
from bhnbench.engine.cluster import open_cluster, ray
from bhnbench.sweep.execution import Resources

def join(environment):
    command = [sys.executable, "-c", sys.argv[1], address]
    environment = environment | {"RAY_NUM_REDIS_GET_RETRIES": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    return done.stdout.strip()

def holds_token(path):
    return path.is_file() and token.encode() in path.read_bytes()

with open_cluster([Resources(cpu=1, gpu=0)]):
    address, token = ray.get_runtime_context().gcs_address, os.environ["RAY_AUTH_TOKEN"]
    stranger = {k: v for k, v in os.environ.items() if not k.startswith("RAY_AUTH_")}
    found = {
        "worker": ray.get(ray.remote(lambda: os.environ["RAY_AUTH_TOKEN"]).remote()) == token,
        "friend": join(dict(os.environ)),
        "stranger": join(stranger),
        "guess": join(stranger | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}),
    }
    session = Path(ray._private.worker._global_node.get_session_dir_path())
    files = [*session.rglob("*"), *Path.home().rglob("*")]
    found |= {"length": len(token), "written": [str(p) for p in files if holds_token(p)]}
print(json.dumps(found), file=sys.stderr)
"""


def without_ray() -> dict[str, str]:
    """The environment as a user has it."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}


def test_a_local_cluster_takes_nobody_in_but_its_own(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CLUSTER, JOIN],
        env=without_ray() | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stderr) == {
        "worker": True,
        "friend": "joined",
        "stranger": "refused",
        "guess": "refused",
        "length": 64,
        "written": [],
    }
    assert not (tmp_path / ".ray").exists()


@pytest.mark.parametrize(
    ("given", "token"),
    [
        ({}, True),
        ({"RAY_ADDRESS": "local"}, True),
        ({"RAY_ADDRESS": "10.0.0.1:6379"}, False),
        ({"RAY_AUTH_MODE": "disabled"}, False),
        ({"RAY_AUTH_TOKEN_PATH": "/nowhere"}, False),
    ],
)
def test_what_the_user_says_of_tokens_stays(given: dict[str, str], token: bool) -> None:
    code = "import os, bhnbench.engine; print('RAY_AUTH_TOKEN' in os.environ)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=without_ray() | given,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(token)
