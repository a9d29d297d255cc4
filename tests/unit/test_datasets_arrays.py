"""A user's own arrays: what is taken, how it is dealt out, what is refused."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from bhnbench.errors import DataError
from bhnbench.runner import execute
from bhnbench.specs import RunSpec
from bhnbench.sweep.entries import bind
from bhnbench_tasks.datasets import (
    NAMES,
    data_digest,
    image_shape,
    load_dataset,
    n_channels,
    n_classes,
    n_train_rows,
    prepare_dataset,
    value_range,
)
from bhnbench_tasks.datasets.tables import TABLES, load_table, prepare_table, table_digest
from bhnbench_tasks.digit_classification import DigitClassification

N = 50
CLASSES = np.arange(N) % 3
PICTURES = np.random.default_rng(0).integers(0, 256, (N, 4, 5), dtype=np.uint8)
FEATURES = np.random.default_rng(1).normal(size=(N, 2))
VALUES = 3 * FEATURES[:, 0] + 1


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, and no data folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BHNBENCH_DATA", raising=False)
    return tmp_path


def write(**arrays: np.ndarray) -> str:
    np.savez("mine.npz", **arrays)
    return "mine.npz"


def parts(inputs: np.ndarray, targets: np.ndarray, *names: str) -> dict[str, np.ndarray]:
    """The arrays in equal parts of those names."""
    found = {}
    for name, rows in zip(names, np.array_split(np.arange(len(inputs)), len(names)), strict=True):
        found |= {f"{name}_inputs": inputs[rows], f"{name}_targets": targets[rows]}
    return found


def test_pictures_become_a_data_set():
    path = write(inputs=PICTURES, targets=CLASSES)
    dataset = load_dataset(path)
    splits = [dataset.train, dataset.validation, dataset.holdout("test")]
    assert [len(split) for split in splits] == [30, 10, 10]
    assert (dataset.n_classes, dataset.n_inputs, dataset.n_channels) == (3, 20, 1)
    assert (n_train_rows(path), image_shape(path), n_channels(path)) == (30, (4, 5), 1)
    assert (n_classes(path), value_range(path)) == (3, (PICTURES.min() / 255, 1))
    rows = {tuple(x.tolist()): y for s in splits for x, y in zip(s.inputs, s.targets, strict=True)}
    expected = torch.from_numpy(PICTURES).flatten(1).float() / 255
    assert {tuple(x.tolist()) for x in expected} == set(rows)
    assert all(rows[tuple(x.tolist())] == c for x, c in zip(expected, CLASSES, strict=True))
    for split in splits:
        assert (split.inputs.dtype, split.targets.dtype) == (torch.float32, torch.int64)


def test_the_range_is_that_of_all_rows_whichever_part_they_are_in():
    for row in (0, 20, 49):
        inputs = FEATURES.clip(-3, 3)
        inputs[row] = -7, 300
        for arrays in (
            {"inputs": inputs, "targets": CLASSES},
            parts(inputs, CLASSES, "train", "validation", "test"),
        ):
            path = write(**arrays)
            os.utime(path, ns=(row, row))
            assert value_range(path) == (-7, 300)


def test_rows_are_dealt_out_by_their_places_alone():
    path = write(inputs=PICTURES, targets=CLASSES)
    first = load_dataset(path).train.inputs
    write(inputs=PICTURES[::-1], targets=CLASSES)
    second = load_dataset(path).train.inputs
    places = {tuple(x): place for place, x in enumerate(PICTURES.reshape(N, -1).tolist())}
    order = [places[tuple(round(255 * v) for v in x)] for x in first.tolist()]
    again = [N - 1 - places[tuple(round(255 * v) for v in x)] for x in second.tolist()]
    assert order == again
    assert order != sorted(order)


@pytest.mark.parametrize(
    ("shape", "image", "channels"),
    [((6,), (1, 6), 1), ((2, 3), (2, 3), 1), ((3, 2, 4), (2, 4), 3)],
)
def test_shapes_of_inputs(shape: tuple[int, ...], image: tuple[int, int], channels: int):
    inputs = np.random.default_rng(0).normal(size=(N, *shape))
    dataset = load_dataset(write(inputs=inputs, targets=CLASSES.astype(np.uint8)))
    assert (dataset.image_shape, dataset.n_channels) == (image, channels)
    assert dataset.n_inputs == inputs[0].size == dataset.train.inputs.shape[1]
    stored = {tuple(x) for x in inputs.reshape(N, -1).astype(np.float32).tolist()}
    assert {tuple(x) for x in dataset.train.inputs.tolist()} <= stored  # real numbers are left


def test_a_file_may_deal_out_its_rows():
    path = write(**parts(PICTURES, CLASSES, "train", "validation", "test"))
    dataset = load_dataset(path)
    splits = [dataset.train, dataset.validation, dataset.holdout("test")]
    assert [len(split) for split in splits] == [17, 17, 16]
    inputs = torch.cat([split.inputs for split in splits])
    assert torch.equal(inputs, torch.from_numpy(PICTURES).flatten(1).float() / 255)
    assert torch.cat([split.targets for split in splits]).tolist() == CLASSES.tolist()


def test_a_table_has_twenty_splits():
    path = write(inputs=FEATURES, targets=VALUES)
    table = load_table(path)
    assert table.n_splits == 20
    assert (table.inputs.shape, table.targets.shape) == ((N, 2), (N, 1))
    tests = set()
    for k in range(20):
        train, test = table.train(k), table.test(k)
        assert (len(train), len(test)) == (45, 5)
        for split in (train, test):
            assert split.inputs.dtype == split.targets.dtype == torch.float64
            assert torch.allclose(split.targets, 3 * split.inputs[:, :1] + 1)
        together = torch.cat([train.targets, test.targets]).flatten()
        assert torch.equal(together.sort().values, torch.from_numpy(np.sort(VALUES)))
        tests.add(tuple(test.targets.flatten().tolist()))
    assert len(tests) == 20
    with pytest.raises(IndexError, match=r"0 <= k < 20 must hold, but got k=20"):
        table.test(20)


@pytest.mark.parametrize("names", [("train", "test"), ("train", "validation", "test")])
def test_a_table_may_have_one_split_of_its_own(names: tuple[str, ...]):
    table = load_table(write(**parts(FEATURES, VALUES[:, None].astype(int), *names)))
    assert table.n_splits == 1
    n_test = N // len(names)
    assert torch.equal(table.train(0).inputs, torch.from_numpy(FEATURES[:-n_test]))
    assert torch.equal(table.test(0).inputs, torch.from_numpy(FEATURES[-n_test:]))


@pytest.mark.parametrize("n", [3, 5, 6])
def test_a_small_table_has_something_to_test_on(n: int):
    table = load_table(write(inputs=FEATURES[:n], targets=VALUES[:n]))
    for k in range(table.n_splits):
        assert (len(table.train(k)), len(table.test(k))) == (n - 1, 1)
    path = write(inputs=FEATURES[:n], targets=CLASSES[:n])
    os.utime(path, ns=(n, n))
    if n > 3:
        dataset = load_dataset(path)
        assert min(len(dataset.validation), len(dataset.holdout("test"))) == 1


def test_the_digest_is_that_of_the_file_and_follows_it():
    path = write(inputs=FEATURES, targets=CLASSES)
    first = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    assert data_digest(path) == table_digest(path) == first
    assert load_dataset(path) is load_dataset(path)
    assert load_table(path) is load_table(path)
    before = load_dataset(path)
    write(inputs=FEATURES + 1, targets=CLASSES)
    os.utime(path, ns=(1, 1))
    assert data_digest(path) == hashlib.sha256(Path(path).read_bytes()).hexdigest() != first
    assert not torch.equal(load_dataset(path).train.inputs, before.train.inputs)


def test_a_file_is_found_below_the_data_folder_too(folder: Path, monkeypatch):
    write(inputs=FEATURES, targets=CLASSES)
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    monkeypatch.setenv("BHNBENCH_DATA", str(folder))
    near, far = "mine.npz", str(folder / "mine.npz")
    assert n_train_rows(near) == n_train_rows(far) == 30
    specs = [bind("task", "digit_classification", {"dataset": path}) for path in (near, far)]
    assert specs[0].settings != specs[1].settings
    assert specs[0].identity == specs[1].identity
    with pytest.raises(DataError, match=r"other\.npz: no such file, neither below .*elsewhere"):
        data_digest("other.npz")


def test_names_admit_files():
    for space in (NAMES, TABLES):
        assert space.contains("data/mine.npz")
        assert not space.contains("mine.csv")
        assert not space.contains(".npz")
        assert str(space).endswith(" | FILE.npz")
    path = write(inputs=PICTURES, targets=CLASSES)
    assert DigitClassification(dataset=path).data_digest == data_digest(path)
    prepare_dataset(path)


def test_a_run_refuses_other_data_than_were_planned():
    settings = {"dataset": write(inputs=PICTURES, targets=CLASSES), "epochs": 1, "n_samples": 2}
    task, method = bind("task", "digit_classification", settings), bind("method", "dropout", {})
    spec = RunSpec(task, method, "search", seed=0)
    assert execute(spec).state == "done"
    write(inputs=PICTURES[::-1], targets=CLASSES)
    result = execute(spec)
    assert (result.state, result.failure) == ("failed", "error")
    assert f"digest of its data must be '{task.data_digest}', as planned, but is" in result.message
    assert bind("task", "digit_classification", settings).data_digest != task.data_digest


WRONG_IMAGES = {
    "targets is not there": {"inputs": PICTURES},
    "must hold inputs and targets, or both for each of train, validation, test, but "
    "test_inputs and test_targets is not there": parts(PICTURES, CLASSES, "train", "validation"),
    "unknown array 'target'; did you mean 'targets'?": {
        "inputs": PICTURES, "targets": CLASSES, "target": CLASSES,
    },
    "must have equally many rows, but are (50, 4, 5) and (49,)": {
        "inputs": PICTURES, "targets": CLASSES[:-1],
    },
    "inputs must be uint8 or real numbers, but is int64": {
        "inputs": PICTURES.astype(int), "targets": CLASSES,
    },
    "inputs must be uint8 or real numbers, but is complex128": {
        "inputs": PICTURES.astype(complex), "targets": CLASSES,
    },
    "must be classes, whole numbers of shape (n,), but is float64 (50,)": {
        "inputs": PICTURES, "targets": CLASSES.astype(float),
    },
    "must be classes, whole numbers of shape (n,), but is int64 (50, 1)": {
        "inputs": PICTURES, "targets": CLASSES[:, None],
    },
    "must be the classes 0, 1, ... k - 1, each at least once and two at least, but are 1, 2, 3": {
        "inputs": PICTURES, "targets": CLASSES + 1,
    },
    "but are 0, 2": {"inputs": PICTURES, "targets": CLASSES % 2 * 2},
    "but are -1, 0, 1": {"inputs": PICTURES, "targets": CLASSES - 1},
    "at least, but are 0": {"inputs": PICTURES, "targets": 0 * CLASSES},
    "at least, but are 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, ...": {
        "inputs": PICTURES, "targets": np.arange(N) + 10,
    },
    "must be of shape (rows, features) or more, none of them 0, but is (50,)": {
        "inputs": FEATURES[:, 0], "targets": CLASSES,
    },
    "none of them 0, but is (0, 2)": {"inputs": FEATURES[:0], "targets": CLASSES[:0]},
    "but is (50, 1, 1, 1, 2)": {"inputs": FEATURES[:, None, None, None], "targets": CLASSES},
    "must be finite, but 2 of its values are not; the first is nan at [3, 1]": {
        "inputs": np.where(np.isin(np.arange(100).reshape(50, 2), (7, 9)), np.nan, 0.0),
        "targets": CLASSES,
    },
    "inputs must have 4 rows or more, so that each part gets one, but has 3": {
        "inputs": PICTURES[:3], "targets": CLASSES[:3],
    },
    "inputs of all parts must be alike, but test_inputs is float64 (16, 2) beside uint8": {
        **parts(PICTURES, CLASSES, "train", "validation", "test"), "test_inputs": FEATURES[:16],
    },
}  # fmt: skip


@pytest.mark.parametrize(("reason", "arrays"), WRONG_IMAGES.items(), ids=range(len(WRONG_IMAGES)))
def test_wrong_images_are_refused_in_one_line(reason: str, arrays: dict[str, np.ndarray]):
    path = write(**arrays)
    with pytest.raises(DataError) as error:
        load_dataset(path)
    text = str(error.value)
    assert reason in text
    assert text.startswith("mine.npz: ")
    assert "\n" not in text


WRONG_TABLES = {
    "targets must be finite, but 1 of its values are not; the first is inf at [49]": {
        "inputs": FEATURES, "targets": np.where(np.arange(N) < 49, 0.0, np.inf),
    },
    "inputs must be numbers, but is bool": {"inputs": FEATURES > 0, "targets": VALUES},
    "targets must be numbers, but is <U1": {"inputs": FEATURES, "targets": np.full(N, "a")},
    "must be (n, d) and targets (n,) or (n, 1), but they are (50, 4, 5) and (50,)": {
        "inputs": PICTURES, "targets": VALUES,
    },
    "besides test rows there must be two or more, to train on and to validate with, but the "
    "number of them is 1; add rows": {"inputs": FEATURES[:2], "targets": VALUES[:2]},
    "but the number of them is 1; add": {
        **parts(FEATURES[:10], VALUES[:10], "train", "test"),
        "train_inputs": FEATURES[:1], "train_targets": VALUES[:1],
    },
    "but they are (50, 2) and (50, 2)": {"inputs": FEATURES, "targets": FEATURES},
    "test_inputs and test_targets is not there": parts(FEATURES, VALUES, "train"),
}  # fmt: skip


@pytest.mark.parametrize(("reason", "arrays"), WRONG_TABLES.items(), ids=range(len(WRONG_TABLES)))
def test_wrong_tables_are_refused_in_one_line(reason: str, arrays: dict[str, np.ndarray]):
    path = write(**arrays)
    with pytest.raises(DataError) as error:
        prepare_table(path)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_no_npz_file_is_refused():
    path = Path("mine.npz")
    for content in (b"", b"not a zip file"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"mine\.npz: must be a whole \.npz file"):
            load_dataset(str(path))
    write(inputs=PICTURES, targets=CLASSES)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"mine\.npz: must be a whole \.npz file"):
        load_dataset(str(path))
    np.savez_compressed("mine.npz", inputs=PICTURES, targets=CLASSES)
    content = bytearray(path.read_bytes())
    content[300:310] = bytes(10)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"mine\.npz: must be a whole \.npz file"):
        load_dataset(str(path))
    with path.open("wb") as file:
        np.save(file, PICTURES)
    with pytest.raises(DataError, match=r"mine\.npz: must be a whole \.npz file"):
        load_dataset(str(path))


def test_python_objects_are_not_unpickled():
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (Path("sprung"),)  # type: ignore[return-value]

    path = write(inputs=np.array([Trap()], dtype=object), targets=CLASSES[:1])
    with pytest.raises(DataError, match=r"must be a whole \.npz file of plain arrays"):
        load_dataset(path)
    assert not Path("sprung").exists()
