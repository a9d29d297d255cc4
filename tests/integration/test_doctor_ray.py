"""`bhnbench doctor`: Ray, real clusters with and without tokens, away, elsewhere, too small."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from bhnbench_doubles.examined import Findings, broken, examine

pytestmark = pytest.mark.slow

RAY = [sys.executable, "-c", "from ray.scripts.scripts import main; main()"]
OUTSIDE, INSIDE = "10.231.9.1", "10.231.9.2"  # this machine, and a host of a network of its own
UNSHARED = ["Ray: shared data"]  # two hosts, and an SQLite ledger
OPEN = ["Ray: protection", *UNSHARED]


@pytest.fixture(autouse=True)
def own_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's folder without a token, and no settings of Ray's."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, f"127.0.0.1,{INSIDE}")
    monkeypatch.setenv("RAY_ADDRESS", "local")  # `--address` may change it for this test alone


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def started(
    *arguments: str, environment: Mapping[str, str], through: Sequence[str] = ()
) -> Iterator[None]:
    """A node, from when it is up until it is gone."""
    with tempfile.TemporaryDirectory(
        prefix="r", dir="/tmp", ignore_cleanup_errors=True
    ) as folder:  # short: the paths of sockets
        log = Path(folder) / "log"
        options = ["--block", "--disable-usage-stats", "--num-cpus=1", f"--temp-dir={folder}/t"]
        command = [*through, *RAY, "start", *arguments, *options]
        with log.open("wb") as file:
            process = subprocess.Popen(
                [*command, "--object-store-memory=80000000"],
                env=without_ray() | environment,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        try:
            until = time.monotonic() + 240
            while "Ray runtime started" not in log.read_text():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < until, log.read_text()
                time.sleep(0.2)
            yield
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def without_ray() -> dict[str, str]:
    """The environment without what the engine sets in it."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}


@pytest.fixture(scope="module")
def open_cluster() -> Iterator[str]:
    """Two hosts, as far as Ray can tell, that take everybody in."""
    port = free_port()
    head = ["--head", "--node-ip-address=127.0.0.1", f"--port={port}"]
    worker = ["--node-ip-address=127.0.0.2", f"--address=127.0.0.1:{port}"]
    with (
        started(*head, "--include-dashboard=false", environment={"RAY_AUTH_MODE": "disabled"}),
        started(*worker, environment={"RAY_AUTH_MODE": "disabled"}),
    ):
        yield f"127.0.0.1:{port}"


def ip(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[list[str]]:
    """A command line that runs another one on a host of a network of its own."""
    name = f"doctor{os.getpid()}"
    made = ip("netns", "add", name)
    if made.returncode:
        pytest.skip(f"needs root, to make a network: {made.stderr.strip()}")
    try:
        ip("link", "add", "bhnveth0", "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("addr", "add", f"{OUTSIDE}/24", "dev", "bhnveth0")
        ip("link", "set", "bhnveth0", "up")
        ip("-n", name, "link", "set", "lo", "up")
        ip("-n", name, "addr", "add", f"{INSIDE}/24", "dev", "eth0")
        up = ip("-n", name, "link", "set", "eth0", "up")
        assert not up.returncode, up.stderr
        yield ["ip", "netns", "exec", name]
    finally:
        ip("link", "delete", "bhnveth0")
        ip("netns", "delete", name)


@pytest.fixture(scope="module")
def closed_cluster(
    elsewhere: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A cluster on another host that asks for a token: the file of it."""
    token = tmp_path_factory.mktemp("token") / "token"
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    head = ["--head", f"--node-ip-address={INSIDE}", "--port=6379"]
    dashboard = ["--include-dashboard=true", f"--dashboard-host={INSIDE}", "--dashboard-port=8265"]
    try:
        import ray.dashboard.optional_deps  # noqa: F401 - ray[default] is installed
    except ImportError:
        dashboard = ["--include-dashboard=false"]
    with started(*head, *dashboard, environment=environment, through=elsewhere):
        yield token


def examine_at(address: str, *arguments: object) -> Findings:
    return examine(*arguments, "--address", address)


# Without a cluster


def test_addresses_that_no_sweep_takes() -> None:
    finding = broken("Ray: address", examine_at("ray://head:10001"))
    assert "bhnbench submit" in finding["fix"]
    broken("Ray: address", examine_at("head"))


def test_a_long_temp_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/nowhere")
    assert broken("Ray: temp folder", examine())["found"] == "/nowhere is no folder"
    folder = tmp_path / ("x" * 60)
    folder.mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    finding = broken("Ray: temp folder", examine())
    assert "characters too long for Ray's sockets" in finding["found"]
    code = "import ray; ray.init('local', include_dashboard=False, num_cpus=1)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert "AF_UNIX path length cannot exceed" in done.stderr


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"RAY_AUTH_TOKEN_PATH": "/nowhere"}, "/nowhere: No such file or directory"),
        ({"RAY_AUTH_MODE": "token"}, "RAY_AUTH_MODE=token, but there is no token"),
        ({"RAY_AUTH_TOKEN": 64 * "a"}, "there is one, but it is not shown"),
    ],
)
def test_tokens_that_do_not_get_there(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], found: str
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    findings = examine_at("127.0.0.1:6379")
    assert broken("Ray: token", findings)["found"] == found
    assert 64 * "a" not in str(findings)


@pytest.mark.parametrize("scheme", ["", "http://"])
def test_a_port_where_nobody_listens(scheme: str) -> None:
    finding = broken("Ray: connection", examine_at(f"{scheme}127.0.0.1:{free_port()}"))
    assert finding["found"] == "no answer: Connection refused"


@pytest.mark.parametrize("scheme", ["", "http://"])
def test_a_cluster_that_never_answers(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started_at = time.monotonic()
        findings = examine_at(f"{scheme}127.0.0.1:{silent.getsockname()[1]}")
        assert time.monotonic() - started_at < 120
    broken("Ray: connection", findings)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("{cpu: 4096}", "asks for 4096 and none has more than"),
        ("{gpu: 512}", "asks for 512 and none has more than"),
        ("{memory: 1000000}", "asks for 1e+06 GiB and none has more than"),
    ],
)
def test_a_request_that_nobody_can_satisfy(tmp_path: Path, asked: str, found: str) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(
        f"name: x\ntasks: [guess]\nmethods: [{{name: constant, resources: {asked}}}]\n"
    )
    assert found in broken("Ray: resources", examine(file))["found"]


# With an open one


def test_a_cluster_that_takes_everybody_in(open_cluster: str) -> None:
    findings = examine_at(open_cluster)
    finding = broken("Ray: protection", findings, also=UNSHARED)
    assert "CVE-2023-48022" in finding["found"]
    assert findings["Ray: connection"]["found"] == "2 hosts, 2 CPU, 0 GPU"
    assert findings["Ray: this host"]["state"] == "ok"
    assert findings["Ray: resources"]["state"] == "ok"


def test_a_ledger_that_other_hosts_do_not_find(
    open_cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    finding = broken("Ray: shared data", examine_at(open_cluster), also=["Ray: protection"])
    assert "$BHNBENCH_LEDGER is a file of one host" in finding["found"]
    monkeypatch.setenv("BHNBENCH_LEDGER", f"postgresql+psycopg://me@localhost:{free_port()}/x")
    finding = examine_at(open_cluster)["Ray: shared data"]
    assert "$BHNBENCH_LEDGER is another machine on each host" in finding["found"]


def test_a_cluster_of_other_versions(open_cluster: str) -> None:
    with metadata_of(open_cluster, '{"ray_version": "2.40.0", "python_version": "3.9.1"}'):
        findings = examine_at(open_cluster)
    finding = broken("Ray: versions", findings)
    assert finding["found"].startswith("Ray 2.40.0, Python 3.9.1 there, but Ray 2.")
    assert examine_at(open_cluster)["Ray: versions"]["state"] == "ok"


SAY = """
import sys
from ray._raylet import GcsClient
client, place = GcsClient(address=sys.argv[1]), (b"CLUSTER_METADATA", b"cluster")
sys.stdout.write(client.internal_kv_get(*place, timeout=20).decode())
client.internal_kv_put(place[0], sys.argv[2].encode(), True, place[1], timeout=20)
"""


@contextmanager
def metadata_of(address: str, content: str) -> Iterator[None]:
    """The cluster says of itself what ``content`` says."""
    before = _say(address, content)
    yield
    _say(address, before)


def _say(address: str, content: str) -> str:
    """What it said before; in a process of its own, which Ray ends where a token is amiss."""
    stranger = {k: v for k, v in os.environ.items() if not k.startswith("RAY_AUTH_")}
    command = [sys.executable, "-c", SAY, address, content]
    done = subprocess.run(command, env=stranger, capture_output=True, text=True, check=True)
    return done.stdout


# With a closed one, on another host


def test_a_cluster_that_wants_another_token(
    closed_cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"{INSIDE}:6379"
    found = "the cluster asks for a token, and ours is missing or wrong"
    assert broken("Ray: connection", examine_at(address))["found"] == found
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", 64 * "0")
    findings = examine_at(address)
    assert broken("Ray: connection", findings)["found"] == found
    assert "RAY_AUTH_TOKEN_PATH" in findings["Ray: connection"]["fix"]
    assert 64 * "0" not in str(findings)


def test_a_cluster_of_other_hosts(closed_cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(closed_cluster))
    findings = examine_at(f"{INSIDE}:6379")
    finding = broken("Ray: this host", findings)
    assert finding["found"] == f"no node of the cluster, which has {INSIDE}"
    assert "bhnbench submit" in finding["fix"]
    assert findings["Ray: protection"]["found"] == "the cluster asks for a token"
    assert closed_cluster.read_text() not in str(findings)


def test_a_cluster_by_its_dashboard(closed_cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray.dashboard.optional_deps", reason="needs bhnbench[cluster]")
    url = f"http://{INSIDE}:8265"
    finding = broken("Ray: connection", examine_at(url))
    assert "ours is missing or wrong" in finding["found"]
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(closed_cluster))
    findings = examine_at(url)
    broken("Ray: shared data", findings)  # the driver will run there, the ledger is here
    assert findings["Ray: connection"]["found"] == "1 host, 1 CPU, 0 GPU"
    assert findings["Ray: protection"]["state"] == "ok"
