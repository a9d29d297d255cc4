"""Outliers: images of other data sets and noise, and how images are made smaller."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import avg_pool2d

from bhnbench.contract import DataFile
from bhnbench.errors import DataError
from bhnbench_tasks.datasets import (
    NAMES,
    cifar10,
    files,
    load_dataset,
    mnist,
    n_classes,
    omniglot,
    outliers,
)
from bhnbench_tasks.datasets.outliers import (
    KINDS,
    NOISE,
    OUTLIERS,
    common_kinds,
    load_outliers,
    outliers_digest,
    prepare_outliers,
)
from bhnbench_tasks.datasets.resize import resize


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test's own, and no data folder."""
    monkeypatch.delenv(files.FOLDER_VARIABLE, raising=False)
    monkeypatch.setattr(files, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache"


def put(cache: Path, file: DataFile, content: bytes) -> DataFile:
    """A file in the cache, and its description."""
    path = cache / file.path
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return DataFile(file.path, f"sha256:{hashlib.sha256(content).hexdigest()}", len(content))


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_whole_factors_are_means_of_blocks():
    images = torch.rand(3, 28, 28, generator=rng())
    assert torch.allclose(resize(images, (7, 14)), avg_pool2d(images, (4, 2)))
    assert torch.equal(resize(images, (28, 28)), images)


def test_a_pixel_on_a_border_counts_by_its_parts():
    row = torch.tensor([[[6.0, 12.0, 18.0]]])
    assert resize(row, (1, 2)).tolist() == [[[8.0, 16.0]]]  # (6 + 12/2) / 1.5, (12/2 + 18) / 1.5
    assert resize(row, (1, 6)).tolist() == [[[6.0, 6.0, 12.0, 12.0, 18.0, 18.0]]]


@pytest.mark.parametrize("shape", [(28, 28), (8, 8), (5, 9), (40, 33)])
def test_means_and_bounds_stay(shape: tuple[int, int]):
    images = (torch.rand(20, 32, 32, generator=rng()) < 0.9).float()
    images[0] = 1
    small = resize(images, shape)
    assert small.shape == (20, *shape)
    assert small.dtype == torch.float32
    assert torch.allclose(small.mean((1, 2)), images.mean((1, 2)), atol=1e-6)
    assert small.min() >= 0
    assert small.max() <= 1
    assert small[0].min() == 1


@pytest.mark.parametrize("name", NOISE)
def test_noise(name: str):
    drawn = load_outliers(name, "validation", (8, 8), rng())
    assert drawn.shape == (outliers.N_NOISE, 64)
    assert torch.equal(drawn, load_outliers(name, "validation", (8, 8), rng()))
    assert not torch.equal(drawn, load_outliers(name, "validation", (8, 8), rng(1)))
    mean, sd = (0.5, 12**-0.5) if name == "uniform" else (0.0, 1.0)
    assert abs(drawn.mean() - mean) < 4 * sd / drawn.numel() ** 0.5
    assert abs(drawn.std() / sd - 1) < 4 / drawn.numel() ** 0.5
    assert ((drawn < 0).any() or (drawn > 1).any()) == (name == "gaussian")  # it is not clipped
    assert outliers_digest(name) == ""
    prepare_outliers(name)


def test_every_set_has_a_digest_of_its_own():
    digests = [outliers_digest(str(name)) for name in OUTLIERS.values if name not in NOISE]
    assert len({*digests}) == len(digests) == 6
    assert all(len(digest) == 64 for digest in digests)


def test_sets_that_show_the_same_things_are_known():
    assert set(KINDS) == {*NAMES.values, *OUTLIERS.values}
    pairs = {("digits", "mnist"), ("notmnist", "omniglot"), ("kmnist", "omniglot")}
    related = {(a, b) for a in KINDS for b in KINDS if a < b and common_kinds(a, b)}
    assert related == pairs
    assert common_kinds("omniglot", "omniglot") == "Latin letters and hiragana"
    assert common_kinds("mine.npz", "mnist") == common_kinds("mine.npz", "unseen_class") == ""


@pytest.mark.parametrize("name", ["notmnist", "mnist"])
@pytest.mark.parametrize("shape", [(28, 28), (8, 8)])
def test_halves_are_disjoint(
    data_folder: Path, name: str, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(files.FOLDER_VARIABLE, str(data_folder))
    prepare_outliers(name)
    validation, test = (
        load_outliers(name, holdout, shape, rng()) for holdout in ("validation", "test")
    )
    assert validation.shape == test.shape == (5000, shape[0] * shape[1])
    assert validation.dtype == torch.float32
    assert min(validation.min(), test.min()) >= 0
    assert max(validation.max(), test.max()) <= 1
    everything = resize(outliers._IMAGES[name].read(), shape).flatten(1)
    joined = torch.cat([validation, test])
    by_content = [torch.unique(images, dim=0) for images in (joined, everything)]
    assert torch.equal(*by_content)  # all images, and each in one half
    assert torch.equal(validation, load_outliers(name, "validation", shape, rng(5)))


def test_mnist_as_outliers_is_its_test_file(data_folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(files.FOLDER_VARIABLE, str(data_folder))
    rows = {row.numpy().tobytes() for row in load_dataset("mnist").holdout("test").inputs}
    found = load_outliers("mnist", "test", (28, 28), rng())
    assert {row.numpy().tobytes() for row in found} <= rows
    assert (
        outliers_digest("mnist")
        == hashlib.sha256(mnist.TEST.images.digest.removeprefix("sha256:").encode()).hexdigest()
    )


def picture(number: int, drawing: int) -> np.ndarray:
    """A white sheet with one stroke, other for every drawing."""
    sheet = np.ones((105, 105), bool)
    sheet[(number % 10) * 10 : (number % 10) * 10 + 10, drawing * 5 : drawing * 5 + 5] = False
    return sheet


def make_omniglot(n_drawings: int) -> bytes:
    """The published archive in small: the same names, and alphabets that are not wanted."""
    opened = io.BytesIO()
    alphabets = {**omniglot.ALPHABETS, "Korean": range(643, 683)}
    with zipfile.ZipFile(opened, "w") as archive:
        archive.writestr("images_background/", "")
        for alphabet, numbers in alphabets.items():
            for number in numbers:
                for drawing in range(n_drawings):
                    encoded = io.BytesIO()
                    Image.fromarray(picture(number, drawing)).save(encoded, "png")
                    folder = f"images_background/{alphabet}/character{number - numbers[0] + 1:02}"
                    name = f"{folder}/{number:04}_{drawing + 1:02}.png"
                    archive.writestr(name, encoded.getvalue())
    return opened.getvalue()


def test_omniglot(cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(omniglot, "N_DRAWINGS", 2)
    monkeypatch.setattr(omniglot, "FILE", put(cache, omniglot.FILE, make_omniglot(2)))
    images, alphabets = omniglot.read_images()
    assert images.shape == (920, 28, 28)
    assert torch.bincount(alphabets).tolist() == [
        2 * len(numbers) for numbers in omniglot.ALPHABETS.values()
    ]
    numbers = sorted(number for numbers in omniglot.ALPHABETS.values() for number in numbers)
    for place in (0, 1, 555, 919):  # strokes are light, by characters and then drawings
        sheet = torch.from_numpy(~picture(numbers[place // 2], place % 2)).float()
        assert torch.allclose(images[place], resize(sheet, (28, 28)))
        assert numbers[place // 2] in [*omniglot.ALPHABETS.values()][alphabets[place]]
    dataset = omniglot.load()
    assert [len(s) for s in (dataset.train, dataset.validation)] == [552, 184]
    assert dataset.n_classes == n_classes("omniglot") == 15
    monkeypatch.setattr(omniglot, "N_DRAWINGS", 20)
    with pytest.raises(
        DataError, match=r"must hold 9200 drawings of the alphabets, but holds 920"
    ):
        omniglot.read_images()


def test_the_alphabets_give_the_papers_number_of_drawings():
    # Hendrycks and Gimpel report a base rate of 47.92 % against 10 000 digits: 9200 drawings.
    assert sum(len(numbers) for numbers in omniglot.ALPHABETS.values()) * 20 == 9200
    assert round(100 * 9200 / (9200 + 10_000), 2) == 47.92
    taken = [number for numbers in omniglot.ALPHABETS.values() for number in numbers]
    assert len(set(taken)) == 460
    assert max(taken) <= 964


def make_cifar(rows: dict[str, np.ndarray]) -> bytes:
    opened = io.BytesIO()
    with tarfile.open(fileobj=opened, mode="w:gz") as archive:
        for name, content in rows.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            member.size = content.size
            archive.addfile(member, io.BytesIO(content.tobytes()))
    return opened.getvalue()


def test_cifar(cache: Path, monkeypatch: pytest.MonkeyPatch):
    drawn = np.random.default_rng(0)
    names = [*(f"data_batch_{number}" for number in range(5, 0, -1)), "test_batch"]
    rows = {n: drawn.integers(0, 256, (4, 3073), dtype=np.uint8) for n in names}
    for content in rows.values():
        content[:, 0] %= 10
    monkeypatch.setattr(cifar10, "FILE", put(cache, cifar10.FILE, make_cifar(rows)))
    monkeypatch.setattr(cifar10, "N_VALIDATION", 6)
    dataset = cifar10.load()
    train = np.concatenate([rows[f"data_batch_{number}"] for number in range(1, 6)])
    assert torch.equal(
        torch.cat([dataset.train.targets, dataset.validation.targets]),
        torch.from_numpy(train[:, 0].astype(int)),
    )
    assert len(dataset.train) == 14
    assert dataset.n_inputs == 3072
    assert torch.equal(dataset.train.inputs, torch.from_numpy(train[:14, 1:] / np.float32(255)))
    assert dataset.holdout("test").targets.tolist() == rows["test_batch"][:, 0].tolist()
    red, green, blue = (
        torch.from_numpy(rows["test_batch"][:, 1 + 1024 * c : 1025 + 1024 * c] / 255)
        for c in range(3)
    )
    grey = (0.299 * red + 0.587 * green + 0.114 * blue).float().reshape(4, 32, 32)
    assert torch.allclose(cifar10.read_grey(), grey, atol=1e-6)
    outliers._load.cache_clear()
    validation = load_outliers("cifar10", "validation", (28, 28), rng())
    test = load_outliers("cifar10", "test", (28, 28), rng())
    small = resize(grey, (28, 28)).flatten(1)
    assert torch.allclose(
        torch.cat([validation, test]).sort(0).values, small.sort(0).values, atol=1e-6
    )
    outliers._load.cache_clear()
