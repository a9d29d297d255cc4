"""Downloads, against real servers that also fail, stall, break off and serve nonsense."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from bhnbench_doubles.mirrors import Mirrors

from bhnbench import progress_bar
from bhnbench.contract import DataFile
from bhnbench.errors import DataError
from bhnbench_tasks.datasets import download, files

CONTENT = random.Random(0).randbytes(300_000)
PACKED = gzip.compress(CONTENT)
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
FILE = DataFile("set/part.gz", SHA256, decompressed=True)


@pytest.fixture
def mirrors(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirrors]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "CHUNK_BYTES", 1000)
    running = Mirrors()
    yield running
    running.close()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test's own, and no data folder."""
    monkeypatch.delenv(files.FOLDER_VARIABLE, raising=False)
    monkeypatch.setattr(files, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache"


def all_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def message(error: pytest.ExceptionInfo[DataError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def leave_part(cache: Path, content: bytes) -> Path:
    """What an earlier process has left behind."""
    part = cache / "set" / "part.gz.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(content)
    return part


def test_a_download_is_checked_kept_and_not_repeated(mirrors: Mirrors, cache: Path):
    good = mirrors.add("good", PACKED)
    assert files.read(FILE, [good]) == CONTENT
    assert files.read(FILE, [good]) == CONTENT
    assert mirrors.requests == [("/good/part.gz", None)]
    assert all_files(cache) == [cache / FILE.path]  # no lock, no part


def test_mirrors_are_tried_in_turn(mirrors: Mirrors, cache: Path):
    others = [
        mirrors.add("missing", status=404),
        mirrors.add("failing", status=500),
        mirrors.add("wrong", gzip.compress(b"something else")),
        mirrors.add("torn", PACKED[:-20]),
        mirrors.add("good", gzip.compress(CONTENT, compresslevel=1)),
        mirrors.add("spare", PACKED),
    ]
    assert files.read(FILE, others) == CONTENT
    assert mirrors.asked == ["missing", "failing", "wrong", "torn", "good"]


def test_a_mirror_may_be_one_address_and_may_have_moved(mirrors: Mirrors, cache: Path):
    good = mirrors.add("good", PACKED)
    moved = mirrors.add("moved", status=302, location=f"{good}5976036")
    leave_part(cache, PACKED[:1000])
    assert files.read(FILE, [f"{moved}file"]) == CONTENT
    assert mirrors.requests == [("/moved/file", "bytes=1000-"), ("/good/5976036", "bytes=1000-")]


def test_wrong_content_is_not_kept(mirrors: Mirrors, cache: Path):
    wrong = b"something else"
    url = mirrors.add("wrong", gzip.compress(wrong))
    with pytest.raises(DataError) as error:
        files.read(FILE, [url])
    text = message(error)
    for part in (SHA256[7:], hashlib.sha256(wrong).hexdigest(), f"{url}part.gz"):
        assert part in text
    assert all_files(cache) == []


def test_no_network_and_no_data_says_where_to_put_the_file(mirrors: Mirrors, cache: Path):
    nobody = "http://127.0.0.1:9/"  # the discard port: refused
    with pytest.raises(DataError) as error:
        files.read(FILE, [nobody, mirrors.add("missing", status=404)])
    text = message(error)
    assert "ConnectionError" in text
    assert "HTTP status 404" in text
    assert f"set BHNBENCH_DATA to a folder that holds {FILE.path}" in text
    assert str(cache / FILE.path) in text
    assert SHA256[7:] in text
    assert all_files(cache) == []


def test_a_cache_that_cannot_be_written_says_so(mirrors: Mirrors, cache: Path):
    cache.write_text("a file where the folder should be")
    good = mirrors.add("good", PACKED)
    with pytest.raises(DataError, match=r"Not a directory.*set BHNBENCH_DATA") as error:
        files.read(FILE, [good])
    assert message(error)


def test_a_broken_download_goes_on_where_it_broke(mirrors: Mirrors, cache: Path):
    good = mirrors.add("good", PACKED, breaks=[70_000, 80_000])
    assert files.read(FILE, [good]) == CONTENT
    assert mirrors.ranges == [None, "bytes=70000-", "bytes=150000-"]


def test_the_next_mirror_goes_on_with_it(mirrors: Mirrors, cache: Path):
    breaking = mirrors.add("breaking", PACKED, breaks=[70_000, 0])
    assert files.read(FILE, [breaking, mirrors.add("good", PACKED)]) == CONTENT
    assert mirrors.asked == ["breaking", "breaking", "good"]
    assert mirrors.ranges == [None, "bytes=70000-", "bytes=70000-"]


def test_a_later_process_goes_on_with_it(mirrors: Mirrors, cache: Path):
    breaking = mirrors.add("breaking", PACKED, breaks=[70_000, 0])
    with pytest.raises(DataError, match=r"ChunkedEncodingError|ConnectionError"):
        files.read(FILE, [breaking])
    (part,) = all_files(cache)
    assert (part.name, part.read_bytes()) == ("part.gz.part", PACKED[:70_000])
    assert files.read(FILE, [breaking]) == CONTENT
    assert mirrors.ranges[-1] == "bytes=70000-"
    assert all_files(cache) == [cache / FILE.path]


def test_a_server_without_ranges_starts_over(mirrors: Mirrors, cache: Path):
    good = mirrors.add("good", PACKED, ranges=False, breaks=[70_000])
    assert files.read(FILE, [good]) == CONTENT
    assert len(mirrors.requests) == 2


@pytest.mark.parametrize(
    "left",
    [b"the beginning of another file", PACKED + b"and more", PACKED],
    ids=["foreign", "too long", "whole"],
)
def test_what_is_left_of_something_else_is_dropped(mirrors: Mirrors, cache: Path, left: bytes):
    leave_part(cache, left)
    assert files.read(FILE, [mirrors.add("good", PACKED)]) == CONTENT
    assert mirrors.ranges == [f"bytes={len(left)}-", None]
    assert all_files(cache) == [cache / FILE.path]


def test_a_mirror_that_brings_nothing_again_and_again_is_left(mirrors: Mirrors, cache: Path):
    dead = mirrors.add("dead", PACKED, breaks=[0] * 100)
    assert files.read(FILE, [dead, mirrors.add("good", PACKED)]) == CONTENT
    assert mirrors.asked == ["dead", "good"]


def test_a_mirror_that_breaks_for_ever_is_left(mirrors: Mirrors, cache: Path):
    breaking = mirrors.add("breaking", PACKED, breaks=[1000] * 100)
    with pytest.raises(DataError, match="broke off 20 times"):
        files.read(FILE, [breaking])
    assert len(mirrors.requests) == 20


def test_a_mirror_that_stalls_is_left(mirrors: Mirrors, cache: Path, monkeypatch):
    # The good mirror has as long to answer: on a busy machine 0.2 s is not enough.
    monkeypatch.setattr(download, "TIMEOUT_SECONDS", (10, 3))
    others = [mirrors.add("stalling", PACKED, stalls=1000), mirrors.add("good", PACKED)]
    assert files.read(FILE, others) == CONTENT
    assert mirrors.asked == ["stalling", "stalling", "good"]
    assert mirrors.ranges == [None, "bytes=1000-", "bytes=1000-"]


def test_one_process_downloads_and_the_others_find_it(mirrors: Mirrors, tmp_path: Path):
    url = mirrors.add("good", PACKED, seconds=3)
    code = (
        "import sys, hashlib\n"
        "from bhnbench.contract import DataFile\n"
        "from bhnbench_tasks.datasets import files\n"
        f"file = DataFile({FILE.path!r}, {FILE.digest!r}, decompressed=True)\n"
        f"print(hashlib.sha256(files.read(file, [{url!r}])).hexdigest())"
    )
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path)}
    running = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    printed = [process.communicate()[0].decode().strip() for process in running]
    assert printed == 3 * [SHA256[7:]]
    assert len(mirrors.requests) == 1


def test_the_lock_of_a_dead_process_holds_nobody(mirrors: Mirrors, cache: Path):
    part = leave_part(cache, b"")
    part.with_name("part.gz.lock").touch()
    assert files.read(FILE, [mirrors.add("good", PACKED)]) == CONTENT
    assert all_files(cache) == [cache / FILE.path]


def test_progress_counts_every_byte(mirrors: Mirrors, cache: Path):
    told: list[tuple[str, int, int | None]] = []
    good = mirrors.add("good", PACKED, breaks=[70_000])
    files.read(FILE, [good], lambda *news: told.append(news))
    assert {path for path, _, _ in told} == {FILE.path}
    assert {in_all for _, _, in_all in told} == {len(PACKED)}
    counts = [n_bytes for _, n_bytes, _ in told]
    assert counts == sorted(set(counts))
    assert counts[-1] == len(PACKED)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_bar_is_for_terminals_alone(monkeypatch: pytest.MonkeyPatch):
    for stream in (terminal := Terminal(), plain := io.StringIO()):
        monkeypatch.setattr(sys, "stderr", stream)
        progress_bar.show("set/part.gz", 5_000_000, 10_000_000)
        progress_bar.show("set/part.gz", 10_000_000, 10_000_000)
        progress_bar.show("x" * 100, 1, None)
    assert plain.getvalue() == ""
    half, rest = terminal.getvalue().split("\r", maxsplit=1)
    whole, cut = rest.split("\n")
    assert re.fullmatch(r"set/part\.gz: 5\.0 of 10\.0 MB \[#{24}\.{25}\]", half)
    assert re.fullmatch(r"set/part\.gz: 10\.0 of 10\.0 MB \[#{48}\]", whole)
    assert cut == "x" * 79 + "\r"  # the line is drawn over by what comes next
