"""`bhnbench doctor`: machine, plugins, sweep file and home, each row broken for real."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from bhnbench_doubles.command_line import DOCUMENT, call
from bhnbench_doubles.examined import broken, examine, examine_elsewhere
from bhnbench_doubles.mirrors import Mirrors

from bhnbench import files
from bhnbench.doctor.examination import all_checks
from bhnbench.doctor.sweep_file import SweepFile
from bhnbench.findings import Check, Finding, Verdict
from bhnbench.home import Home
from bhnbench.plugins import installed

TESTS = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def own_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's folder without tokens, and without a cluster."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def sweep_yaml(tmp_path: Path) -> Path:
    path = tmp_path / "sweep.yaml"
    path.write_text("name: demo\ntasks: [guess]\nmethods: [constant]\n")
    return path


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The dist-info of a package that a test makes up; it comes before all others."""
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    folder = tmp_path / "site" / "stranger-2.5.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 2.5\n")
    installed.cache_clear()
    yield folder
    installed.cache_clear()
    sys.modules.pop("stranger", None)


def test_every_row_is_shown_at_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "".join(path.read_text() for path in TESTS.glob("*/test_doctor*.py"))
    shown = set(re.findall(r'broken\(\s*"([^"]+)"', text))
    rows = set()
    for uri, address in (("sqlite:///mlflow.db", "local"), ("http://mlflow", "head:6379")):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        monkeypatch.setenv("RAY_ADDRESS", address)
        file = SweepFile(tmp_path / "sweep.yaml", ())
        rows |= {f"{check.group}: {check.name}" for check in all_checks(file, Home(tmp_path))}
    assert rows == shown


def test_all_is_well(sweep_yaml: Path) -> None:
    findings = examine(sweep_yaml)
    assert {row["state"] for row in findings.values()} <= {"ok", "skipped"}, findings
    assert findings["Sweep file: document"]["found"] == "demo: 1 study"
    assert not Path(os.environ["BHNBENCH_HOME"]).exists()  # looking makes nothing
    result = call("doctor", sweep_yaml)
    assert result.exit_code == 0
    assert result.stdout.endswith("\nReady to run.\n")


@pytest.mark.parametrize("width", [80, 120])
def test_lines_fit_the_terminal_and_say_the_state_in_words(
    monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes it for a terminal
    result = call("doctor", "--home", "/dev/null/home")
    lines = click.unstyle(result.stdout).splitlines()
    assert max(map(len, lines)) <= width
    at = next(number for number, line in enumerate(lines) if line.startswith("  failed   folder "))
    fix = next(line for line in lines[at:] if "fix: " in line)
    assert fix.index("fix: ") == lines[at].index("/dev/null")
    assert lines[-2:] == ["Not ready: 1 failed, 0 warnings.", "  Home: folder"]
    assert result.exit_code == 1


def test_a_check_that_crashes_or_hangs_is_a_line() -> None:
    def crash() -> Verdict:
        raise SystemExit("a plugin's whim")

    crashed = Check("Group", "name", crash).examine()
    fix = "repair that, or report it as a fault"
    text = "the check itself failed: SystemExit: a plugin's whim"
    assert crashed == Finding("Group", "name", "failed", text, fix)
    reader, writer = os.pipe()
    hung = Check("Group", "name", lambda: Verdict("ok", str(os.read(reader, 1))), 0.2).examine()
    assert (hung.state, hung.found) == ("failed", "no answer in 0.2 s")
    os.write(writer, b"x")


# This machine


@pytest.mark.parametrize(
    ("row", "line", "found", "fix"),
    [
        ("Python", "Requires-Python: >=4", "but bhnbench needs >=4", "with a Python >=4"),
        ("packages", "Requires-Dist: click>=99", "must be >=99", "pip install 'click>=99'"),
        ("packages", "Requires-Dist: nowhere", "nowhere is missing", "pip install 'nowhere'"),
    ],
)
def test_versions_that_do_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: str, line: str, found: str, fix: str
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = tmp_path / "bhnbench-9.dist-info"
    folder.mkdir()
    text = f"Metadata-Version: 2.1\nName: bhnbench\nVersion: 9\n{line}\n"
    (folder / "METADATA").write_text(text + "Requires-Dist: nothing; extra == 'postgres'\n")
    findings = examine()
    if row == "Python":
        finding = broken("This machine: Python", findings)
    else:
        finding = broken("This machine: packages", findings)
    assert found in finding["found"]
    assert fix in finding["fix"]


@pytest.mark.slow
def test_a_torch_that_cannot_be_imported(tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(
        "raise OSError('libcudart.so.13: cannot open shared object file')\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])
    findings = examine_elsewhere(environment={"PYTHONPATH": path})
    also = ["Plugins: methods", "Plugins: tasks"]
    finding = broken("This machine: torch", findings, also=also)
    assert "libcudart.so.13" in finding["found"]


def test_a_gpu_that_torch_cannot_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this torch can use a GPU")
    (tmp_path / "nvidia0").touch()
    monkeypatch.setattr("bhnbench.doctor.machine.DEVICES", tmp_path)
    finding = broken("This machine: torch", examine())
    assert "nvidia0 is here, but this torch cannot use it" in finding["found"]


def in_small_file_system(size: str, mount_point: Path, option: str = "") -> list[str]:
    """A command line that runs another one where ``mount_point`` is a file system of its own."""
    mount = f"mount -t tmpfs -o size={size} none {mount_point}"
    script = f'{mount} && {option or ":"} && exec "$@"'
    through = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh"]
    done = subprocess.run([*through, "true"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"needs namespaces of its own: {done.stderr.strip()}")
    return through


@pytest.mark.slow
def test_little_shared_memory() -> None:
    through = in_small_file_system("64m", Path("/dev/shm"))
    finding = broken("This machine: shared memory", examine_elsewhere(through=through))
    assert "67 MB free of 67 MB in /dev/shm; below 256 MB" in finding["found"]
    assert "--shm-size" in finding["fix"]


@pytest.mark.slow
def test_few_open_files() -> None:
    through = ["sh", "-c", 'ulimit -n 1024 && exec "$@"', "sh"]
    finding = broken("This machine: open files", examine_elsewhere(through=through))
    assert finding["found"] == "up to 1024 a process; Ray asks for 4096 at least"


# Plugins


def test_plugins_that_cannot_be_imported(stranger: Path) -> None:
    (stranger.parent / "stranger.py").write_text("import nowhere\n")
    entries = stranger / "entry_points.txt"

    def install(kind: str) -> None:
        entries.write_text(f"[bhnbench.{kind}s]\nmine = stranger:Mine\n")
        installed.cache_clear()

    install("method")
    finding = broken("Plugins: methods", examine())
    assert "No module named 'nowhere'" in finding["found"]
    assert finding["fix"] == "repair or uninstall: stranger"
    install("task")
    broken("Plugins: tasks", examine())
    install("dataset")
    broken("Plugins: data sets", examine())


# Sweep file


def test_a_file_with_mistakes_is_told_whole_and_exits_with_2(sweep_yaml: Path) -> None:
    sweep_yaml.write_text(f"{DOCUMENT}colour: red\nresources: {{cpu: 0}}\n")
    finding = broken("Sweep file: document", examine(sweep_yaml))
    assert "unknown key" in finding["found"].splitlines()[0]
    assert "cpu: must be at least 1" in finding["found"].splitlines()[1]
    assert call("doctor", sweep_yaml).exit_code == 2
    assert call("doctor", sweep_yaml.with_name("nowhere.yaml")).exit_code == 2
    assert call("doctor").exit_code == 0


@pytest.fixture
def mirrors(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirrors]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running = Mirrors()
    yield running
    running.close()


def test_data_sets_that_are_broken_or_out_of_reach(
    tmp_path: Path,
    sweep_yaml: Path,
    monkeypatch: pytest.MonkeyPatch,
    stranger: Path,
    mirrors: Mirrors,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("BHNBENCH_DATA", str(tmp_path / "data"))
    url = mirrors.add("good", b"content")
    digest = f"sha256:{64 * '0'}"
    (stranger.parent / "stranger.py").write_text(
        "from bhnbench.contract import DataFile, Outcome, Task\n"
        "from dataclasses import dataclass\n"
        "from bhnbench.contract import Metric\n"
        "from bhnbench.space import setting\n"
        "from bhnbench_tasks.datasets.source import Source\n"
        f"SOURCE = Source(doc='Mine: x', origin='me', load=lambda: 0, mirrors=({url!r},),\n"
        f"    files=(DataFile('mine/a', {digest!r}, 7_000_000),))\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class Mine(Task):\n"
        "    '''Mine.'''\n"
        "    metrics = (Metric('x', 'maximize', ''),)\n"
        "    dataset: str = setting('mine', 'data set')\n"
        "    def evaluate(self, fit, *, holdout, rng, report, checkpoint):\n"
        "        raise AssertionError('must not be asked: it would download')\n"
    )
    (stranger / "entry_points.txt").write_text(
        "[bhnbench.tasks]\nmine = stranger:Mine\n[bhnbench.datasets]\nmine = stranger:SOURCE\n"
    )
    installed.cache_clear()
    findings = examine(sweep_yaml, "--set", "tasks=[mine]")
    assert findings["Sweep file: data"]["found"] == "the sweep downloads mine (7.0 MB)"
    assert findings["Sweep file: methods"]["state"] == "skipped"
    assert mirrors.asked == ["good"]
    del mirrors.answers["good"]
    finding = broken("Sweep file: data", examine(sweep_yaml, "--set", "tasks=[mine]"))
    assert finding["found"] == "not here, and no mirror answers: mine"
    assert "bhnbench data fetch mine" in finding["fix"]
    (tmp_path / "data" / "mine").mkdir(parents=True)
    (tmp_path / "data" / "mine" / "a").write_bytes(b"wrong")
    sweep_yaml.write_text(sweep_yaml.read_text().replace("guess", "mine"))
    finding = examine(sweep_yaml)["Sweep file: data"]
    assert finding["state"] == "failed"
    assert f"must be {64 * '0'}" in finding["found"]


def test_methods_that_cannot_do_the_task(sweep_yaml: Path) -> None:
    methods = "methods=[constant, {name: failing, how: unsupported}]"
    finding = broken("Sweep file: methods", examine(sweep_yaml, "--set", methods))
    assert finding["state"] == "warning"
    assert finding["found"] == "failing cannot do guess: it never works"
    finding = broken(
        "Sweep file: methods",
        examine(sweep_yaml, "--set", "methods=[{name: failing, how: unsupported}]"),
    )
    assert finding["state"] == "failed"


def test_a_storage_that_cannot_be_reached(
    tmp_path: Path, sweep_yaml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("a file")
    storage = f"storage={tmp_path / 'file' / 'deeper'}"
    finding = broken("Sweep file: storage", examine(sweep_yaml, "--set", storage))
    assert f"{tmp_path / 'file'} is a file, not a folder" in finding["found"]
    findings = examine(sweep_yaml, "--set", f"storage={tmp_path / 'progress'}")
    assert findings["Sweep file: storage"]["state"] == "ok"
    assert not (tmp_path / "progress").exists()
    with socket.socket() as closed:  # bound, but nobody listens
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed.getsockname()[1]}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
        monkeypatch.setenv("AWS_REGION", "nowhere-1")
        findings = examine(sweep_yaml, "--set", "storage=s3://bucket/progress")
    finding = broken("Sweep file: storage", findings)
    assert finding["found"].startswith("s3://bucket/progress: ")
    assert "AWS_ENDPOINT_URL" in finding["fix"]
    assert "s3cret" not in str(findings)


# Home


def test_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    finding = broken("Home: folder", examine())
    assert f"{tmp_path / 'home'} is a file, not a folder" in finding["found"]
    assert "--home" in finding["fix"]
    deeper = broken("Home: folder", examine("--home", tmp_path / "home" / "deeper"))
    assert "is a file, not a folder" in deeper["found"]


@pytest.mark.slow
def test_a_home_that_may_only_be_read(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    again = f"mount -o remount,ro {tmp_path / 'home'}"
    through = in_small_file_system("3g", tmp_path / "home", again)
    finding = broken("Home: folder", examine_elsewhere(through=through))
    assert finding["found"].endswith("Read-only file system")


@pytest.mark.slow
@pytest.mark.parametrize(("size", "state"), [("50m", "failed"), ("500m", "warning")])
def test_a_home_on_a_full_disk(tmp_path: Path, size: str, state: str) -> None:
    (tmp_path / "home").mkdir()
    through = in_small_file_system(size, tmp_path / "home")
    finding = broken("Home: free disk", examine_elsewhere(through=through))
    assert finding["state"] == state


def test_sqlite_on_a_network_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mounts"
    here = str(tmp_path).replace(" ", r"\040")
    mounts.write_text(f"/dev/vda / ext4 rw 0 0\nserver:/x {here} nfs4 rw,vers=4.2 0 0\n")
    monkeypatch.setattr(files, "MOUNTS", mounts)
    finding = broken("Home: file system", examine())
    assert finding["state"] == "failed"
    assert (
        f"{tmp_path / 'home' / 'ledger.db'} and {tmp_path / 'home' / 'mlflow.db'} would, on nfs4"
        in (finding["found"])
    )
    local = tmp_path.parent / f"{tmp_path.name}-local"
    monkeypatch.setenv("BHNBENCH_LEDGER", f"sqlite:///{local}/ledger.db")
    finding = broken("Home: file system", examine())
    assert finding["state"] == "warning"  # a sweep does not stop for MLflow
    assert finding["fix"].endswith("with $MLFLOW_TRACKING_URI")


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "lustre", "fuse.sshfs", "9p"])
def test_kinds_of_file_systems(kind: str) -> None:
    assert files.Mount(Path("/"), kind).on_a_network
    for local in ("ext4", "xfs", "btrfs", "tmpfs", "overlay", "fuseblk", "fuse.fuse-overlayfs"):
        assert not files.Mount(Path("/"), local).on_a_network


HOLD = """
import sys
from pathlib import Path
from bhnbench.home import Home
with Home(Path(sys.argv[1])).locked():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_home_that_a_sweep_holds(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path / "home")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        finding = broken("Home: other sweeps", examine())
        assert finding["state"] == "warning"
        process.kill()
    assert examine()["Home: other sweeps"]["state"] == "ok"


def test_a_token_that_others_may_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = tmp_path / "token"
    token.write_text(64 * "a")
    token.chmod(0o640)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    finding = broken("Home: secret files", examine())
    assert finding["fix"] == f"chmod 600 {token}"
    token.chmod(0o600)
    assert examine()["Home: secret files"]["state"] == "ok"
