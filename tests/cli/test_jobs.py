"""`submit`, `jobs`, `logs` and `stop` as far as no cluster is needed."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from bhnbench_doubles.command_line import DOCUMENT, call

COMMANDS = [["submit", "sweep.yaml"], ["jobs"], ["logs", "last"], ["stop", "last"]]


@pytest.fixture(autouse=True)
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep file where the user is; what the commands tell Ray is forgotten."""
    (tmp_path / "sweep.yaml").write_text(DOCUMENT)
    monkeypatch.chdir(tmp_path)
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, "")


@pytest.fixture
def web_server() -> Iterator[str]:
    """A server that is no Ray head."""
    handler = http.server.SimpleHTTPRequestHandler
    handler.log_message = lambda *_: None  # type: ignore[method-assign]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("arguments", COMMANDS)
def test_a_head_must_answer(arguments: list[str]) -> None:
    result = call(*arguments, "--address", "http://127.0.0.1:9")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: http://127.0.0.1:9: no Ray head answers (Connection")
    assert len(result.stderr.splitlines()) == 1


def test_it_must_be_a_head(web_server: str) -> None:
    result = call("jobs", "--address", f"{web_server}/")
    assert (result.exit_code, result.stderr) == (
        1,
        f"error: {web_server}: is no Ray head: /api/version gives 404\n",
    )


@pytest.mark.parametrize("address", ["head:8265", "ray://head:10001", "auto", "10.0.0.1:6379"])
def test_the_address_is_that_of_the_dashboard(address: str) -> None:
    result = call("jobs", "--address", address)
    assert result.exit_code == 1
    assert "such as http://head:8265" in result.stderr


def test_a_document_with_mistakes_goes_nowhere() -> None:
    Path("sweep.yaml").write_text(DOCUMENT.replace("constant,", "constand,"))
    result = call("submit", "sweep.yaml", "--address", "http://127.0.0.1:9")
    assert result.exit_code == 2
    assert "did you mean 'constant'?" in result.stderr


def test_a_password_goes_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BHNBENCH_LEDGER", "postgresql+psycopg://lab:hush@db/runs")
    result = call("submit", "sweep.yaml", "--address", "http://127.0.0.1:9")
    assert result.exit_code == 1
    assert "BHNBENCH_LEDGER must not hold a password" in result.stderr
    assert "hush" not in result.output


@pytest.mark.parametrize(
    ("to", "words"),
    [("kuberay", ["kind: RayJob", "demo"]), ("slurm", ["#SBATCH", "sweep.yaml"])],
)
def test_a_manifest_is_printed_and_nothing_submitted(to: str, words: list[str]) -> None:
    result = call("submit", "sweep.yaml", "--to", to, "--print", "--set", "evaluate.seeds=3")
    assert result.exit_code == 0, result.output
    assert all(word in result.stdout for word in [*words, "evaluate.seeds=3"])


@pytest.mark.parametrize("options", [["--to", "slurm"], ["--print"]])
def test_a_manifest_is_the_users_to_submit(options: list[str]) -> None:
    result = call("submit", "sweep.yaml", *options)
    assert result.exit_code == 2
    assert "--to and --print go together" in result.stderr
