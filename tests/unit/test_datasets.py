"""Data sets: splits, digests, and what is said when files are missing or wrong."""

from __future__ import annotations

import gzip
import hashlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from bhnbench.errors import DataError
from bhnbench_tasks.datasets import data_digest, digits, files, load_dataset, mnist, n_train_rows

CONTENT = b"the content " * 1000
FILE = files.GzipFile("set/part.gz", hashlib.sha256(CONTENT).hexdigest())


class Server:
    """Mirrors on this machine: the first part of a path chooses what a request gets."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, bytes]] = {}
        self.requests: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests.append(self.path)
                status, body = outer.answers.get(self.path.split("/")[1], (404, b""))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def mirror(self, name: str, status: int, body: bytes) -> str:
        self.answers[name] = (status, body)
        return f"http://127.0.0.1:{self.http.server_port}/{name}/"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running = Server()
    thread = threading.Thread(target=running.http.serve_forever, args=(0.01,))
    thread.start()
    yield running
    running.http.shutdown()
    running.http.server_close()
    thread.join()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test's own, and no data folder."""
    monkeypatch.delenv(files.FOLDER_VARIABLE, raising=False)
    monkeypatch.setattr(files, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache"


def put(folder: Path, content: bytes) -> Path:
    path = folder / FILE.path
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress(content))
    return path


def all_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def message(error: pytest.ExceptionInfo[DataError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_a_download_is_checked_kept_and_not_repeated(server: Server, cache: Path):
    good = server.mirror("good", 200, gzip.compress(CONTENT))
    assert files.read(FILE, [good]) == CONTENT
    assert files.read(FILE, [good]) == CONTENT
    assert server.requests == ["/good/part.gz"]
    assert all_files(cache) == [cache / FILE.path]


def test_mirrors_are_tried_in_turn(server: Server, cache: Path):
    mirrors = [
        server.mirror("missing", 404, b""),
        server.mirror("wrong", 200, gzip.compress(b"something else")),
        server.mirror("broken", 200, gzip.compress(CONTENT)[:-20]),
        server.mirror("good", 200, gzip.compress(CONTENT, compresslevel=1)),
    ]
    assert files.read(FILE, mirrors) == CONTENT
    assert len(server.requests) == 4


def test_wrong_content_is_not_kept(server: Server, cache: Path):
    wrong = b"something else"
    url = server.mirror("wrong", 200, gzip.compress(wrong))
    with pytest.raises(DataError) as error:
        files.read(FILE, [url])
    text = message(error)
    for part in (FILE.sha256, hashlib.sha256(wrong).hexdigest(), url + "part.gz"):
        assert part in text
    assert all_files(cache) == []


def test_no_network_and_no_data_says_where_to_put_the_file(cache: Path, server: Server):
    nobody = "http://127.0.0.1:9/"  # the discard port: refused
    with pytest.raises(DataError) as error:
        files.read(FILE, [nobody, server.mirror("missing", 404, b"")])
    text = message(error)
    assert "ConnectionError" in text
    assert "HTTP status 404" in text
    assert f"set BHNBENCH_DATA to a folder that holds {FILE.path}" in text
    assert str(cache / FILE.path) in text


def test_a_cache_that_cannot_be_written_says_so(server: Server, cache: Path):
    cache.write_text("a file where the folder should be")
    good = server.mirror("good", 200, gzip.compress(CONTENT))
    with pytest.raises(DataError, match=r"Not a directory.*set BHNBENCH_DATA"):
        files.read(FILE, [good])


def test_the_users_folder_comes_first(cache: Path, tmp_path: Path, monkeypatch):
    put(tmp_path / "data", CONTENT)
    put(cache, b"not looked at")
    monkeypatch.setenv(files.FOLDER_VARIABLE, str(tmp_path / "data"))
    assert files.read(FILE, []) == CONTENT


def test_the_cache_serves_what_the_users_folder_lacks(cache: Path, tmp_path: Path, monkeypatch):
    put(cache, CONTENT)
    monkeypatch.setenv(files.FOLDER_VARIABLE, str(tmp_path / "data"))
    assert files.read(FILE, []) == CONTENT


@pytest.mark.parametrize("content", [b"something else", b""])
def test_a_wrong_file_is_refused_with_both_digests(cache: Path, content: bytes):
    path = put(cache, content)
    with pytest.raises(DataError) as error:
        files.read(FILE, [])
    text = message(error)
    for part in (str(path), FILE.sha256, hashlib.sha256(content).hexdigest(), "delete it"):
        assert part in text


@pytest.mark.parametrize(
    "content",
    [b"", b"no gzip", gzip.compress(CONTENT)[:-20]],
    ids=["empty", "foreign", "cut off"],
)
def test_a_torn_file_is_refused(cache: Path, content: bytes):
    path = put(cache, b"")
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"delete it and run again") as error:
        files.read(FILE, [])
    assert str(path) in message(error)


def test_digits_are_dealt_evenly():
    dataset = load_dataset("digits")
    splits = [dataset.train, dataset.validation, dataset.holdout("test")]
    assert [len(split) for split in splits] == [1000, 399, 398]
    for split in splits:
        assert split.inputs.shape == (len(split), 64)
        counts = torch.bincount(split.targets, minlength=10)
        shares = counts / len(split)
        assert (shares - 0.1).abs().max() < 0.01
    check_ranges(dataset)


def test_digits_are_each_in_one_split():
    dataset = load_dataset("digits")
    splits = [dataset.train, dataset.validation, dataset.holdout("test")]
    images = torch.cat([split.inputs for split in splits])
    assert len(images) == 1797
    assert len(images.unique(dim=0)) == 1797  # no image stands twice


def test_digits_train_in_random_order():
    targets = load_dataset("digits").train.targets
    assert (targets[1:] == targets[:-1]).float().mean() < 0.2


def test_changed_digits_are_refused():
    dataset = load_dataset("digits")
    changed = dataset.train.inputs * 16
    changed[0, 0] += 1
    with pytest.raises(DataError, match=digits.DIGEST):
        digits._check([type(dataset.train)(changed, dataset.train.targets)])


def check_ranges(dataset) -> None:
    for split in (dataset.train, dataset.validation, dataset.holdout("test")):
        assert split.inputs.dtype == torch.float32
        assert split.targets.dtype == torch.int64
        assert split.inputs.min() == 0
        assert split.inputs.max() == 1
    assert dataset.n_inputs == dataset.train.inputs.shape[1]
    assert n_train_rows(dataset.name) == len(dataset.train)


def test_a_data_set_is_read_once():
    assert load_dataset("digits") is load_dataset("digits")
    assert load_dataset("digits").holdout("test") is load_dataset("digits").holdout("test")


def test_digests_differ_and_cost_no_import():
    assert data_digest("digits") != data_digest("mnist")
    code = (
        "import sys; from bhnbench_tasks.datasets import data_digest, n_train_rows\n"
        "data_digest('mnist'), data_digest('digits'), n_train_rows('mnist')\n"
        "print([m for m in ('sklearn', 'pooch', 'requests', 'scipy') if m in sys.modules])"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert printed.stdout.strip() == "[]"


@pytest.fixture
def fresh_mnist() -> Iterator[None]:
    """MNIST not yet read, before and after."""
    load_dataset.cache_clear()
    mnist._read_test.cache_clear()
    yield
    load_dataset.cache_clear()
    mnist._read_test.cache_clear()


@pytest.mark.usefixtures("fresh_mnist", "cache")
def test_mnist_splits(data_folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(files.FOLDER_VARIABLE, str(data_folder))
    dataset = load_dataset("mnist")
    assert [len(dataset.train), len(dataset.validation)] == [50_000, 10_000]
    assert len(dataset.holdout("test")) == 10_000
    assert dataset.train.inputs.shape == (50_000, 784)
    assert dataset.train.targets[:5].tolist() == [5, 0, 4, 1, 9]
    assert dataset.validation.targets[-3:].tolist() == [5, 6, 8]
    assert dataset.holdout("test").targets[:5].tolist() == [7, 2, 1, 0, 4]
    check_ranges(dataset)


@pytest.mark.usefixtures("fresh_mnist", "cache")
def test_a_search_does_not_read_mnists_test_file(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    for part in ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"):
        (folder / part).symlink_to(data_folder.resolve() / "mnist" / part)
    monkeypatch.setenv(files.FOLDER_VARIABLE, str(tmp_path / "data"))
    monkeypatch.setattr(mnist, "MIRRORS", ())
    dataset = load_dataset("mnist")
    assert len(dataset.holdout("validation")) == 10_000
    with pytest.raises(DataError, match=r"mnist/t10k-images-idx3-ubyte\.gz"):
        dataset.holdout("test")
