"""The script for machines by hand: what it refuses, and how it starts Ray."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.infra_files import INFRA

NODE = INFRA / "machines" / "ray-node.sh"
RAY = """\
#!/bin/sh
echo "$@" "ledger=$BHNBENCH_LEDGER mode=$RAY_AUTH_MODE" >> "$HOME/starts"
[ "$(wc -l < "$HOME/starts")" -lt 2 ] || exec sleep 600
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Of a user with a token, and with a `ray` that ends at once the first time."""
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("0" * 64)
    (tmp_path / "ray").write_text(RAY)
    (tmp_path / "ray").chmod(0o755)
    (tmp_path / "sleep").write_text('#!/bin/sh\n[ "$1" = 5 ] || exec /bin/sleep "$@"\n')
    (tmp_path / "sleep").chmod(0o755)
    (tmp_path / ".config" / "bhnbench").mkdir(parents=True)
    (tmp_path / ".config" / "bhnbench" / "env").write_text("BHNBENCH_LEDGER=there\n")
    return tmp_path


def start(home: Path, *arguments: str) -> subprocess.Popen[str]:
    left_out = ("RAY_", "BHNBENCH_")
    own = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    own |= {"HOME": str(home), "PATH": f"{home}:{own['PATH']}"}
    return subprocess.Popen([NODE, *arguments], env=own, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("arguments", [(), ("head",), ("boss", "10.0.0.1")])
def test_a_wrong_call_says_how_it_is_called(home, arguments):
    process = start(home, *arguments)
    assert "usage:" in process.communicate(timeout=30)[1]
    assert process.returncode == 2


def test_no_node_starts_without_a_token(home):
    (home / ".ray" / "auth_token").unlink()
    process = start(home, "worker", "10.0.0.1")
    assert "needs the cluster's token" in process.communicate(timeout=30)[1]
    assert process.returncode == 1
    assert not (home / "starts").exists()


@pytest.mark.parametrize(
    ("role", "asked", "ledger"),
    [
        ("head", "start --head --block --node-ip-address=10.0.0.1 --port=6379", "there"),
        ("worker", "start --block --address=10.0.0.1:6379", ""),
    ],
)
def test_a_node_starts_again_until_it_is_told_to_end(home, role, asked, ledger):
    process = start(home, role, "10.0.0.1", "--num-cpus=3")
    assert process.stderr is not None
    assert "again in 5 s" in process.stderr.readline()
    while len((home / "starts").read_text().splitlines()) < 2:
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 0
    for line in (home / "starts").read_text().splitlines():
        assert line.startswith(asked)
        assert "--num-cpus=3" in line
        assert line.endswith(f"ledger={ledger} mode=token")
