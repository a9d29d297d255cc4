"""Data sets of images: splits, digests, and what is read when."""

from __future__ import annotations

import gzip
import hashlib
import re
import struct
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from bhnbench.contract import DataFile
from bhnbench.errors import DataError
from bhnbench.plugins import installed, load_source
from bhnbench_tasks import datasets
from bhnbench_tasks.datasets import (
    NAMES,
    Dataset,
    data_digest,
    digits,
    files,
    idx,
    image_shape,
    load_dataset,
    mnist,
    n_channels,
    n_classes,
    n_train_rows,
    value_range,
)
from bhnbench_tasks.datasets.notmnist import SOURCE as NOTMNIST
from bhnbench_tasks.datasets.tables import TABLES

KNOWN = {*NAMES.values, *TABLES.values}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test's own."""
    monkeypatch.setattr(files, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache"


def check_ranges(dataset: Dataset) -> None:
    for split in (dataset.train, dataset.validation, dataset.holdout("test")):
        assert split.inputs.dtype == torch.float32
        assert split.targets.dtype == torch.int64
        assert split.inputs.min() == 0
        assert split.inputs.max() == 1
    assert dataset.n_inputs == dataset.train.inputs.shape[1]
    assert n_train_rows(dataset.name) == len(dataset.train)
    assert image_shape(dataset.name) == dataset.image_shape
    assert n_channels(dataset.name) == dataset.n_channels
    assert n_classes(dataset.name) == dataset.n_classes
    assert value_range(dataset.name) == dataset.value_range == (0, 1)


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


def test_a_data_set_is_read_once():
    assert load_dataset("digits") is load_dataset("digits")
    assert load_dataset("digits").holdout("test") is load_dataset("digits").holdout("test")


def test_what_is_known_costs_no_import():
    code = (
        "import sys; from bhnbench_tasks import datasets\n"
        "from bhnbench_tasks.datasets import outliers, tables\n"
        "for name in datasets.NAMES.values:\n"
        "    datasets.data_digest(name), datasets.n_train_rows(name), datasets.image_shape(name)\n"
        "for name in tables.TABLES.values: tables.table_digest(name)\n"
        "for name in outliers.OUTLIERS.values: outliers.outliers_digest(name)\n"
        "heavy = ('torch', 'numpy', 'sklearn', 'pooch', 'requests', 'scipy', 'PIL')\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert printed.stdout.strip() == "[]"


def test_digests_differ_and_stay():
    digests = [load_source(name).digest for name in KNOWN]  # type: ignore[attr-defined]
    assert len(set(digests)) == len(digests)
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests)
    # They are part of the keys of runs: with another digest everything would be run again.
    assert data_digest("mnist") == mnist.DIGEST
    assert mnist.DIGEST.startswith("c65580678af9")
    assert data_digest("digits").startswith("609562171178")


def test_every_data_set_of_ours_is_declared():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    declared = project["project"]["entry-points"]["bhnbench.datasets"]
    assert set(declared) == KNOWN
    assert {n for n, p in installed("dataset").items() if p.package == "bhnbench"} == KNOWN


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_every_data_set_says_what_it_is(name: str):
    source = load_source(name)
    assert re.fullmatch(r"(?=.{20,90}$)\w[\w -]+: .+", source.doc)
    assert source.origin
    folders = {file.path.split("/")[0] for file in source.files}
    assert folders <= {name, "uci"}
    paths = [file.path for file in source.files]
    assert len(set(paths)) == len(paths)
    for file in source.files:
        assert re.fullmatch(r"sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}", file.digest)
        assert len(source.mirrors) >= 2  # type: ignore[attr-defined]
        assert source.mirrors[0].startswith("https://")  # type: ignore[attr-defined]


def test_known_facts_agree_with_what_is_there(data_folder: Path, cache: Path):
    seen = 0
    for name in NAMES.values:
        source = load_source(str(name))
        if all(source.locate(file) is not None for file in source.files):
            check_ranges(load_dataset(str(name)))
            seen += 1
    assert seen >= 2


def put_idx(folder: Path, name: str, content: np.ndarray) -> DataFile:
    """An IDX file in a data folder."""
    header = struct.pack(f">I{content.ndim}I", 0x800 + content.ndim, *content.shape)
    packed = gzip.compress(header + content.tobytes())
    path = folder / "set" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(packed)
    return DataFile(f"set/{name}", f"sha256:{hashlib.sha256(packed).hexdigest()}", len(packed))


def test_the_layout_of_mnist(cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(idx, "N_TRAIN", 5)
    images = np.random.default_rng(0).integers(0, 256, (8, 28, 28), dtype=np.uint8)
    labels = np.arange(8, dtype=np.uint8)
    train = idx.IdxPart(
        put_idx(cache, "train-images.gz", images), put_idx(cache, "train-labels.gz", labels), ()
    )
    test = idx.IdxPart(
        put_idx(cache, "t-images.gz", images[::-1]),
        put_idx(cache, "t-labels.gz", labels[::-1]),
        (),
    )
    source = idx.mnist_like("set", train, test, doc="Set: so many", origin="nobody")
    dataset = source.load()
    pixels = torch.from_numpy(images.reshape(8, 784) / np.float32(255))
    assert torch.equal(dataset.train.inputs, pixels[:5])
    assert torch.equal(dataset.validation.inputs, pixels[5:])
    assert torch.equal(dataset.holdout("test").inputs, pixels.flip(0))
    assert dataset.train.targets.tolist() == [0, 1, 2, 3, 4]
    assert dataset.holdout("validation").targets.tolist() == [5, 6, 7]
    assert dataset.holdout("test").targets.tolist() == list(range(8))[::-1]
    assert dataset.holdout("test") is dataset.holdout("test")


@pytest.fixture
def fresh_mnist() -> Iterator[None]:
    """MNIST not yet read, before and after."""
    datasets._IMAGES.forget()
    yield
    datasets._IMAGES.forget()


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
    dataset = load_dataset("mnist")
    assert len(dataset.holdout("validation")) == 10_000
    monkeypatch.setattr("bhnbench_tasks.datasets.download.fetch", refuse)
    with pytest.raises(DataError, match=r"mnist/t10k-\w+-idx\d-ubyte\.gz"):
        dataset.holdout("test")


def refuse(file: DataFile, *_: object) -> bytes:
    """In place of a download, which no test may try."""
    raise DataError(file.path)


def test_no_part_of_notmnist_holds_an_image_of_another(
    data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    letters = NOTMNIST.load()
    parts = [letters.train, letters.validation, letters.read_test()]
    images = [image.numpy().tobytes() for part in parts for image in part.inputs]
    assert len(set(images)) == len(images) == 9804
    assert len(letters.train) == NOTMNIST.n_train
