"""Data files: where they are looked for, and what is said of wrong ones."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import pytest

from bhnbench.contract import DataFile
from bhnbench.errors import DataError
from bhnbench_tasks.datasets import files
from bhnbench_tasks.datasets.source import Source

CONTENT = bytes(range(256))
PACKED = gzip.compress(CONTENT, mtime=0)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
FILE = DataFile("set/part.gz", f"sha256:{SHA256}", decompressed=True)
PUBLISHED = DataFile("set/part.gz", f"md5:{hashlib.md5(PACKED).hexdigest()}", len(PACKED))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test's own, and no data folder."""
    monkeypatch.delenv(files.FOLDER_VARIABLE, raising=False)
    monkeypatch.setattr(files, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache"


def put(folder: Path, content: bytes, file: DataFile = FILE) -> Path:
    path = folder / file.path
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


def message(error: pytest.ExceptionInfo[DataError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_the_users_folder_comes_first(cache: Path, tmp_path: Path, monkeypatch):
    put(tmp_path / "data", PACKED)
    put(cache, b"not looked at")
    monkeypatch.setenv(files.FOLDER_VARIABLE, str(tmp_path / "data"))
    assert files.read(FILE, []) == CONTENT
    assert files.folders() == [tmp_path / "data", cache]


def test_the_cache_serves_what_the_users_folder_lacks(cache: Path, tmp_path: Path, monkeypatch):
    put(cache, PACKED)
    monkeypatch.setenv(files.FOLDER_VARIABLE, str(tmp_path / "data"))
    assert files.read(FILE, []) == CONTENT


def test_the_cache_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.cache_folder().is_relative_to(tmp_path)
    assert files.cache_folder().name == "bhnbench"


@pytest.mark.parametrize("content", [b"something else", b""])
def test_a_wrong_file_is_refused_with_both_digests(cache: Path, content: bytes):
    path = put(cache, gzip.compress(content))
    with pytest.raises(DataError) as error:
        files.read(FILE, [])
    text = message(error)
    for part in (str(path), SHA256, hashlib.sha256(content).hexdigest(), "delete it"):
        assert part in text


@pytest.mark.parametrize(
    "content", [b"", b"no gzip", PACKED[:-20]], ids=["empty", "foreign", "torn"]
)
def test_a_torn_file_is_refused(cache: Path, content: bytes):
    path = put(cache, content)
    with pytest.raises(DataError, match=r"delete it and run again") as error:
        files.read(FILE, [])
    text = message(error)
    for part in (str(path), SHA256, hashlib.sha256(content).hexdigest()):
        assert part in text


def test_a_digest_may_be_of_the_published_file(cache: Path):
    path = put(cache, PACKED)
    assert files.read(PUBLISHED, []) == CONTENT
    path.write_bytes(gzip.compress(CONTENT, compresslevel=1))  # the same content, packed anew
    with pytest.raises(DataError, match=f"md5 must be {PUBLISHED.digest[4:]}"):
        files.read(PUBLISHED, [])
    path.write_bytes(PACKED[:100])
    with pytest.raises(DataError, match=rf"\(100 bytes instead of {len(PACKED)}\); delete it"):
        files.read(PUBLISHED, [])


@pytest.mark.parametrize("name", ["set/archive.tar.gz", "set/archive.tgz", "set/archive.zip"])
def test_an_archive_is_left_to_its_reader(cache: Path, name: str):
    file = DataFile(name, f"sha256:{hashlib.sha256(PACKED).hexdigest()}")
    put(cache, PACKED, file)
    assert files.read(file, []) == PACKED


def test_a_source_verifies_without_downloading(cache: Path):
    unpacked = DataFile("set/other.txt", f"sha256:{SHA256}")
    source = Source(
        doc="Set: two files", origin="nobody", load=lambda: 0, files=(FILE, unpacked),
        mirrors=("http://127.0.0.1:9/",),
    )  # fmt: skip
    with pytest.raises(DataError) as error:
        source.verify(FILE)
    text = message(error)
    assert "not on this machine" in text
    assert SHA256 in text
    assert str(cache) in text
    assert "Connection" not in text
    assert source.locate(FILE) is None
    path = put(cache, PACKED)
    assert source.locate(FILE) == path
    source.verify(FILE)
    path.with_name("other.txt").write_bytes(CONTENT)
    source.prepare(lambda *_: pytest.fail("fetched"))


def test_a_file_that_cannot_be_read_says_so(cache: Path):
    path = put(cache, PACKED)
    with pytest.raises(DataError, match=r"cannot be read: Is a directory; allow it"):
        files.read_verified(path.parent, FILE)


def test_one_digest_stands_for_several_files():
    pair = Source(doc="", origin="", load=lambda: 0, files=(FILE, PUBLISHED))
    swapped = Source(doc="", origin="", load=lambda: 0, files=(PUBLISHED, FILE))
    assert len({pair.digest, swapped.digest, SHA256}) == 3
    assert Source(doc="", origin="", load=lambda: 0, bundled_digest="abc").digest == "abc"
