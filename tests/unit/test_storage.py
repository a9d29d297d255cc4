"""Places for the progress of runs: files, and objects of an S3 server on this host."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from bhnbench import checkpoints
from bhnbench.errors import InvalidSweepError
from bhnbench.runner import execute
from bhnbench.specs import RunSpec
from bhnbench.storage import LocalFile, checked_storage, place_at
from bhnbench.sweep.document import read_sweep
from bhnbench.sweep.entries import bind

TOP = "name: demo\ntasks: [guess]\nmethods: [constant]\n"


@pytest.fixture(params=["file", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return request.getfixturevalue("s3") if request.param == "s3" else str(tmp_path / "new")


def test_a_place_holds_what_was_written_last(folder: str) -> None:
    place, other = place_at(f"{folder}/one.pt"), place_at(f"{folder}/one")
    assert place.read() is None
    other.write(b"other")
    for content in (b"x", b"", bytes(6 * 2**20)):  # the last in more than one part
        place.write(content)
        assert place.read() == content
    place.remove()
    place.remove()
    assert place.read() is None
    assert other.read() == b"other"
    other.remove()


def test_a_place_is_never_seen_half_written(folder: str) -> None:
    place = place_at(f"{folder}/shared.pt")
    contents = [bytes([i]) * 300_000 for i in range(2)]
    place.write(contents[0])
    writer = threading.Thread(target=lambda: [place.write(contents[i % 2]) for i in range(20)])
    writer.start()
    seen = []
    while writer.is_alive():
        seen.append(place.read())
    writer.join()
    assert len(seen) > 3
    assert set(seen) <= set(contents)
    place.remove()


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    place = LocalFile(tmp_path / "one.pt")
    place.write(b"before")
    with pytest.raises(TypeError):
        place.write("no bytes")  # type: ignore[arg-type]
    assert place.read() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["one.pt"]


def test_a_lost_run_goes_on_from_its_progress(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "CHECKPOINT_SECONDS", 0.0)
    task = bind("task", "rounds", {"breaks": str(tmp_path / "broken")})
    spec = RunSpec(task, bind("method", "suspect", {}), "evaluate", 1)
    address = f"{folder}/{spec.key}.pt"
    broken = execute(spec, checkpoint_path=address)
    assert (broken.failure, len(broken.warnings)) == ("error", 2)
    assert place_at(address).read() is not None
    done = execute(spec, checkpoint_path=address)
    assert (done.state, len(done.warnings)) == ("done", 3)
    assert done.warnings[:2] == broken.warnings
    assert place_at(address).read() is None


def test_a_store_that_does_not_answer_costs_the_progress_only(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(checkpoints, "CHECKPOINT_SECONDS", 0.0)
    spec = RunSpec(
        bind("task", "rounds", {"n_rounds": 1}), bind("method", "constant", {}), "search", 0
    )
    assert execute(spec, checkpoint_path="nowhere://lab/x.pt").state == "done"
    assert len(caplog.records) == 3  # not read, not written, not removed


@pytest.mark.parametrize(
    ("text", "storage"),
    [
        ("s3://lab/prefix/", "s3://lab/prefix"),
        ("s3://lab", "s3://lab"),
        ("gs://lab/prefix", "gs://lab/prefix"),
        ("/shared/../shared/progress", "/shared/../shared/progress"),
    ],
)
def test_storage_is_an_address_or_a_folder(text: str, storage: str) -> None:
    assert checked_storage(text) == storage


def test_a_folder_is_told_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(TOP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/x")
    assert read_sweep(path).storage is None
    assert read_sweep(path, ["storage=progress"]).storage == str(tmp_path / "progress")
    assert read_sweep(path, ["storage=~/progress"]).storage == "/home/x/progress"


def test_storage_is_no_part_of_a_sweeps_identity(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(TOP)
    plain, told = read_sweep(path), read_sweep(path, ["storage=s3://lab/prefix"])
    assert told.storage == "s3://lab/prefix"
    assert told.digest == plain.digest
    assert told.studies == plain.studies
    assert "storage" not in told.content


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("''", "must be a folder, or an address such as s3://bucket/prefix"),
        ("ftp://lab/x", "must be a folder, or begin with one of s3, gs, gcs, abfs, abfss, hdfs, "
         "viewfs and ://"),
        ("s3://", "must name a bucket, such as s3://bucket/prefix"),
        ("s3://key:hidden@lab/x", "must hold no credentials and no options; they are read from "
         "the environment, such as AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and "
         "AWS_ENDPOINT_URL"),
        ("s3://lab/x?secret_key=hidden", "must hold no credentials and no options; they are read "
         "from the environment, such as AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and "
         "AWS_ENDPOINT_URL"),
        ("3", "must be text, but got 3"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_without_secrets(tmp_path: Path, text: str, line: str) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(f"{TOP}storage: {text}\n")
    with pytest.raises(InvalidSweepError) as caught:
        read_sweep(path)
    assert caught.value.mistakes == [f"{path}:4: storage: {line}"]
    path.write_text(TOP)
    with pytest.raises(InvalidSweepError) as caught:
        read_sweep(path, [f"storage={text}"])
    assert len(caught.value.mistakes) == 1
    assert caught.value.mistakes[0].endswith(f": {line}")
    assert "hidden" not in caught.value.mistakes[0]
