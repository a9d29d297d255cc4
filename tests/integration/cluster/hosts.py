"""Hosts of a real network on one machine.

With root, a host is a set of Linux namespaces: its own network, processes, host name and mounts.
The processes of a host end with its first one, and that ends with the process that made the host.
So nothing is left of a network, whatever happens to the test: not even the bridge, which is in the
namespace of a host too. Networks know nothing of each other; all use the same addresses.

Without root, hosts are addresses of the loopback interface: nothing can be cut then.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

NAMESPACES = ("--net", "--uts", "--mount", "--pid")
FIRST = "while :; do sleep 3600 & wait; done"  # a first process, which takes in orphans
DEFAULT = {"PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "PYTHONPATH", "OMP_NUM_THREADS", "TZ"}
MARK = "BHNBENCH_TEST_HOST"  # by which the processes of a host without namespaces are found


def environment(**more: str) -> dict[str, str]:
    """What a shell on a new host would have, and more."""
    return {name: os.environ[name] for name in DEFAULT & os.environ.keys()} | more


def wait_until(true: Callable[[], object], seconds: float, what: str, pause: float = 0.05) -> None:
    """Ask again and again.

    Raises:
        TimeoutError: it has not become true in time.
    """
    until = time.monotonic() + seconds
    while not true():
        if time.monotonic() > until:
            raise TimeoutError(f"waited {seconds:g} s in vain for {what}")
        time.sleep(pause)


@cache
def why_no_namespaces() -> str:
    """Why hosts cannot have namespaces here; empty where they can."""
    missing = [name for name in ("ip", "unshare", "nsenter", "setpriv") if not shutil.which(name)]
    if missing:
        return f"these programs are missing: {', '.join(missing)}"
    command = ["unshare", *NAMESPACES, "--fork", "--mount-proc", "ip", "link", "add", "bridge"]
    done = subprocess.run(
        [*command, "type", "bridge"], capture_output=True, text=True, check=False
    )
    return "" if done.returncode == 0 else f"not allowed here: {done.stderr.strip()}"


@dataclass
class Host:
    """A machine of the network."""

    name: str
    address: str
    environment: dict[str, str] = field(default_factory=environment)
    started: list[subprocess.Popen[bytes]] = field(default_factory=list, init=False)

    def start(
        self, command: Sequence[str | Path], log: Path, **more: str
    ) -> subprocess.Popen[bytes]:
        """Start a program; output goes to the end of ``log``, ``more`` to the environment."""
        with log.open("ab") as file:
            process = subprocess.Popen(
                [*self.prefix, *map(str, command)],
                env=self.environment | more,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def run(
        self, command: Sequence[str | Path], timeout: float = 300, **more: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end."""
        return subprocess.run(
            [*self.prefix, *map(str, command)],
            env=self.environment | more,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    @property
    def prefix(self) -> list[str]:
        """What runs a command on this host."""
        raise NotImplementedError

    def pids(self) -> list[int]:
        """All processes of the host."""
        raise NotImplementedError

    def end(self) -> None:
        """Pull the plug: every process dies at once."""
        self._kill()
        for process in self.started:
            process.wait(60)

    def _kill(self) -> None:
        raise NotImplementedError

    def commands(self) -> dict[int, str]:
        """What each process of the host calls itself."""
        found = {}
        for pid in self.pids():
            with suppress(OSError):
                line = Path(f"/proc/{pid}/cmdline").read_bytes()
                found[pid] = line.replace(b"\0", b" ").decode(errors="replace").strip()
        return found


@dataclass
class NamespaceHost(Host):
    """A host of its own namespaces."""

    first: subprocess.Popen[bytes] = field(init=False)
    pid: int = field(init=False)

    def __post_init__(self) -> None:
        leash = ["setpriv", "--pdeathsig", "KILL", "unshare", "--fork", "--kill-child"]
        command = [*leash, "--mount-proc", *NAMESPACES, "sh", "-c", FIRST]
        self.first = subprocess.Popen(command, env=self.environment, start_new_session=True)
        wait_until(self._is_there, 20, f"the first process of host {self.name}")
        (self.pid,) = child_pids(self.first.pid)
        self.do("hostname", self.name)
        self.do("ip", "link", "set", "lo", "up")

    def _is_there(self) -> bool:
        return bool(child_pids(self.first.pid)) and _name(child_pids(self.first.pid)[0]) == "sh"

    @property
    def prefix(self) -> list[str]:
        return ["nsenter", "--target", str(self.pid), *NAMESPACES]

    def do(self, *command: str | Path) -> None:
        """Run a command that must work."""
        done = self.run(command)
        if done.returncode:
            raise OSError(f"{self.name}: {' '.join(map(str, command))}: {done.stderr.strip()}")

    def pids(self) -> list[int]:
        own = _pid_namespace(self.pid)
        everybody = (int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal())
        return [pid for pid in everybody if own and _pid_namespace(pid) == own]

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)  # and with it goes all that is in its namespace
        self.first.kill()
        self.first.wait()


@dataclass
class LoopbackHost(Host):
    """An address of this machine; its processes are known by their environment."""

    def __post_init__(self) -> None:
        self.environment[MARK] = f"{self.name}-{os.urandom(8).hex()}"

    @property
    def prefix(self) -> list[str]:
        return []

    def pids(self) -> list[int]:
        mark = f"{MARK}={self.environment[MARK]}".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if mark in path.read_bytes().split(b"\0"):
                    found.append(int(path.parent.name))
        return found

    def _kill(self) -> None:
        while pids := self.pids():  # those that started meanwhile as well
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)


class Network:
    """Hosts that reach each other."""

    may_be_cut = False

    def __init__(self, folder: Path) -> None:
        """A network without hosts yet.

        Args:
            folder: that all of them see; in ``folder / "own"`` each has files of its own, if it
                has namespaces.
        """
        self.own = folder / "own"
        self.own.mkdir()
        self.hosts: dict[str, Host] = {}
        self._prefix = "127.{}.{}".format(*os.urandom(2))  # not the one of another test

    def add(self, name: str, number: int, **more: str) -> Host:
        """Switch a host on; ``number`` is the end of its address."""
        self.hosts[name] = self._make(name, number, environment(**more))
        return self.hosts[name]

    def _make(self, name: str, number: int, variables: dict[str, str]) -> Host:
        return LoopbackHost(name, f"{self._prefix}.{number}", variables)

    def end(self, name: str) -> None:
        """Pull a host's plug."""
        self.hosts.pop(name).end()

    def close(self) -> None:
        """Pull every plug."""
        for name in reversed(list(self.hosts)):
            self.end(name)


class NamespaceNetwork(Network):
    """Hosts on a bridge that only they can reach; no route leads out."""

    may_be_cut = True

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._prefix = "10.77.0"
        self._switch = NamespaceHost("switch", f"{self._prefix}.254")
        try:
            self._switch.do("ip", "link", "add", "bridge", "type", "bridge")
            self._switch.do("ip", "link", "set", "bridge", "up")
        except BaseException:
            self._switch.end()
            raise

    def _make(self, name: str, number: int, variables: dict[str, str]) -> Host:
        host = NamespaceHost(name, f"{self._prefix}.{number}", variables)
        try:
            peer = ["peer", "name", "eth0", "netns", str(host.pid)]
            self._do("link", "add", name, "type", "veth", *peer)
            self._do("link", "set", name, "master", "bridge", "up")
            host.do("ip", "address", "add", f"{host.address}/24", "dev", "eth0")
            host.do("ip", "link", "set", "eth0", "up")
            host.do("mount", "-t", "tmpfs", "own", self.own)
        except BaseException:
            host.end()
            raise
        return host

    def _do(self, *arguments: str) -> None:
        command = ["nsenter", "--target", str(self._switch.pid), "--net", "ip", *arguments]
        subprocess.run(command, check=True, capture_output=True)

    def cut(self, name: str) -> None:
        """Pull a host's network cable."""
        self._do("link", "set", name, "down")

    def heal(self, name: str) -> None:
        """Plug it in again."""
        self._do("link", "set", name, "up")

    def end(self, name: str) -> None:
        super().end(name)
        with suppress(subprocess.CalledProcessError):  # it goes with the host, but not at once
            self._do("link", "delete", name)

    def close(self) -> None:
        super().close()
        self._switch.end()


@contextmanager
def open_network(folder: Path) -> Iterator[Network]:
    """The most real network possible here; BHNBENCH_TEST_HOSTS=loopback asks for less."""
    asked = os.environ.get("BHNBENCH_TEST_HOSTS")
    kind = Network if asked == "loopback" or why_no_namespaces() else NamespaceNetwork
    network = kind(folder)
    try:
        yield network
    finally:
        network.close()


@contextmanager
def shared_folder() -> Iterator[Path]:
    """A folder that all hosts see and every user may enter, as short as sockets need it."""
    with tempfile.TemporaryDirectory(
        prefix="bhn-", dir="/tmp", ignore_cleanup_errors=True
    ) as path:
        Path(path).chmod(0o755)
        yield Path(path)


def child_pids(pid: int) -> list[int]:
    """The children of a process."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def kill(process: subprocess.Popen[bytes], number: int = signal.SIGKILL) -> None:
    """Signal a program that was started on a host, not only what entered the host for it."""
    for pid in child_pids(process.pid) if _name(process.pid) == "nsenter" else [process.pid]:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _pid_namespace(pid: int) -> str:
    try:
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    except OSError:
        return ""
