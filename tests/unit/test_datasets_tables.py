"""Tables for regression: values, splits, digests."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
from pathlib import Path

import pytest
import torch

from bhnbench.contract import DataFile
from bhnbench.errors import DataError
from bhnbench_tasks.datasets import california, diabetes, files, tables, uci
from bhnbench_tasks.datasets.order import deal, shuffled, split_by_hash
from bhnbench_tasks.datasets.regression_table import RegressionTable
from bhnbench_tasks.datasets.tables import TABLES, load_table, prepare_table, table_digest

SHAPES = {  # rows, features
    "boston": (506, 13), "concrete": (1030, 8), "energy": (768, 8), "kin8nm": (8192, 8),
    "naval": (11934, 16), "power": (9568, 4), "protein": (45730, 9), "wine": (1599, 11),
    "yacht": (308, 6),
}  # fmt: skip


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test's own, and no data folder; nothing is downloaded."""
    monkeypatch.delenv(files.FOLDER_VARIABLE, raising=False)
    monkeypatch.setattr(files, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr("bhnbench_tasks.datasets.download.fetch", refuse)
    return tmp_path / "cache"


def refuse(file: DataFile, *_: object) -> bytes:
    """In place of a download, which no test may try."""
    raise DataError(f"{file.path}: would be downloaded")


def check_splits(table: RegressionTable) -> None:
    """Each split parts the rows 9 : 1, and no two splits alike."""
    n, tests = len(table.inputs), set()
    for k in range(table.n_splits):
        train, test = table.rows("train", k), table.rows("test", k)
        assert sorted([*train.tolist(), *test.tolist()]) == list(range(n))
        assert abs(len(test) - n / 10) <= 1
        assert torch.equal(table.train(k).inputs, table.inputs[train])
        assert torch.equal(table.test(k).targets, table.targets[test])
        tests.add(tuple(test.tolist()))
    assert len(tests) == table.n_splits


@pytest.mark.parametrize("name", SHAPES)
def test_a_table_of_uci(data_folder: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(files.FOLDER_VARIABLE, str(data_folder))
    table = load_table(name)
    assert tuple(table.inputs.shape) == SHAPES[name]
    assert table.targets.shape == (SHAPES[name][0], 1)
    assert table.inputs.dtype == table.targets.dtype == torch.float64
    assert table.inputs.isfinite().all()
    assert table.n_splits == (5 if name == "protein" else 20)
    check_splits(table)
    assert load_table(name) is table


def test_values_are_those_of_the_file(data_folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(files.FOLDER_VARIABLE, str(data_folder))
    yacht = load_table("yacht")
    assert yacht.inputs[0].tolist() == [-2.3, 0.568, 4.78, 3.99, 3.17, 0.125]
    assert yacht.targets[0].tolist() == [0.11]
    naval = load_table("naval")  # two targets in the file, of which the first is predicted
    assert (naval.inputs[0, 0].item(), naval.targets[0].item()) == (1.138, 0.95)


def test_a_split_is_read_when_it_is_asked_for(
    data_folder: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "data" / "uci" / "yacht" / "data"
    shutil.copytree(data_folder / "uci" / "yacht" / "data", folder)
    (folder / "index_test_3.txt").unlink()
    (folder / "index_train_4.txt").write_text("0\n1\n")
    monkeypatch.setenv(files.FOLDER_VARIABLE, str(tmp_path / "data"))
    uci._rows.cache_clear()
    table = uci.YACHT.load()
    assert len(table.train(3)) == 277
    with pytest.raises(DataError, match=r"uci/yacht/data/index_test_3\.txt: would be downloaded"):
        table.test(3)
    with pytest.raises(DataError, match=r"index_train_4\.txt: sha256 must be [0-9a-f]{64}, but "):
        table.train(4)
    with pytest.raises(DataError, match=r"index_test_3\.txt"):
        uci.YACHT.prepare(lambda *_: None)
    uci._rows.cache_clear()


def test_every_file_of_uci_is_known():
    for name, (n_rows, _) in SHAPES.items():
        source = tables.SOURCES[name]
        names = {Path(file.path).name for file in source.files}
        splits = range(5 if name == "protein" else 20)
        expected = {f"index_{part}_{k}.txt" for part in ("train", "test") for k in splits}
        assert names == expected | {"data.txt", "index_features.txt", "index_target.txt"}
        assert str(n_rows) in source.doc
        assert all("/UCI_Datasets/" in url and url.endswith("/data/") for url in source.mirrors)


def test_the_digest_is_of_data_and_splits():
    digests = {name: table_digest(str(name)) for name in TABLES.values}
    assert len(set(digests.values())) == len(digests)
    joined = "".join(file.digest.removeprefix("sha256:") for file in uci.YACHT.files)
    assert digests["yacht"] == hashlib.sha256(joined.encode()).hexdigest()


def test_diabetes_is_bundled(cache: Path):
    prepare_table("diabetes")
    table = load_table("diabetes")
    assert (table.inputs.shape, table.targets.shape) == ((442, 10), (442, 1))
    assert table.inputs[0, :3].tolist() == [59.0, 2.0, 32.1]  # raw: years, sex, body mass index
    assert table.targets[:2].flatten().tolist() == [151.0, 75.0]
    assert table.n_splits == 20
    check_splits(table)


def test_a_changed_table_is_refused():
    table = load_table("diabetes")
    changed = table.targets.clone()
    changed[7] += 1e-6
    with pytest.raises(DataError, match=rf"must be {diabetes.DIGEST}, but got .*; install"):
        diabetes.check(table.inputs, changed)


def test_california(cache: Path, monkeypatch: pytest.MonkeyPatch):
    rows = "-122.23,37.88,41,880,129,322,126,8.3252,452600\n" * 30
    opened = io.BytesIO()
    with tarfile.open(fileobj=opened, mode="w:gz") as archive:
        member = tarfile.TarInfo("CaliforniaHousing/cal_housing.data")
        member.size = len(rows)
        archive.addfile(member, io.BytesIO(rows.encode()))
    path = cache / california.FILE.path
    path.parent.mkdir(parents=True)
    path.write_bytes(opened.getvalue())
    with pytest.raises(DataError, match=california.FILE.digest[7:]):
        california.load()
    digest = f"sha256:{hashlib.sha256(opened.getvalue()).hexdigest()}"
    monkeypatch.setattr(california, "FILE", DataFile(california.FILE.path, digest))
    table = california.load()
    # The first row of the published table, as scikit-learn's documentation shows it.
    expected = [8.3252, 41, 6.98412698, 1.02380952, 322, 2.55555556, 37.88, -122.23]
    assert table.inputs[0].tolist() == pytest.approx(expected)
    assert table.targets.flatten().tolist() == pytest.approx([4.526] * 30)
    check_splits(table)


def test_californias_digest_is_scikit_learns():
    from sklearn.datasets import _california_housing

    assert california.FILE.digest == f"sha256:{_california_housing.ARCHIVE.checksum}"
    assert california.MIRRORS[0] == _california_housing.ARCHIVE.url


def test_orders_stay_for_ever():
    # Runs are stored under what these orders make: they may never change.
    assert shuffled(10) == [9, 8, 4, 3, 0, 1, 7, 2, 6, 5]
    assert shuffled(6, salt="a") != shuffled(6)
    assert sorted(shuffled(1000)) == list(range(1000))
    assert split_by_hash(30, "test", 0).tolist() == [26, 15, 11]
    for n in range(1, 8):
        train, test = (split_by_hash(n, part, 3) for part in ("train", "test"))
        assert train.dtype == test.dtype == torch.int64
        assert len(test) == 1
        assert sorted([*train.tolist(), *test.tolist()]) == list(range(n))
    lengths = [len(split) for split in deal(load_table("diabetes").train(0))]
    assert lengths == [239, 79, 80]
