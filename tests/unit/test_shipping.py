"""What a job takes along: packages with their entry points, the sweep, a user's files, no data."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bhnbench import plugins
from bhnbench.engine.shipping import gather
from bhnbench.errors import JobError
from bhnbench.sweep.document import read_sweep

LISTING = """
import json
from bhnbench.plugins import find_plugin, load_method
from bhnbench.provenance import _describe
import bhnbench, bhnbench_doubles
plugin = find_plugin("method", "constant")
print(json.dumps({
    "method": load_method("constant").__name__,
    "git": _describe(plugin)["git"],
    "files": [bhnbench.__file__, bhnbench_doubles.__file__],
}))
"""


def sweep_of(folder: Path, text: str, overrides: tuple[str, ...] = ()):
    file = folder / "mine.yaml"
    file.write_text(text)
    return read_sweep(file, overrides)


DOUBLES = "name: demo\ntasks: [guess]\nmethods: [constant]\n"


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of somebody's, in a source folder with all that gathers in one."""
    folder = tmp_path / "source"
    info = folder / "my_lab-2.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-lab\nVersion: 2.0\n")
    (info / "entry_points.txt").write_text("[bhnbench.methods]\nmine = my_lab.deep.method:Mine\n")
    for name in (
        "__init__.py", "deep/__init__.py", "table.csv", "weights.pt", "runs.db",
        "runs.sqlite3-wal", "data/big.csv", "data_code/__init__.py", ".git/config",
        "env/pyvenv.cfg", "env/lib/x.py",
        "__pycache__/x.pyc", ".secret", "mlruns/0/meta.yaml",
    ):  # fmt: skip
        file = folder / "my_lab" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (folder / "my_lab" / "deep" / "method.py").write_text(
        "from bhnbench_doubles.methods import Constant\n\n\nclass Mine(Constant):\n    'Mine.'\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    plugins.installed.cache_clear()
    yield folder
    plugins.installed.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_lab"]:
        del sys.modules[name]


def test_a_package_goes_along_without_data_and_clutter(outside: Path, tmp_path: Path) -> None:
    shipment = gather(sweep_of(tmp_path, "name: demo\ntasks: [guess]\nmethods: [mine]\n"))
    assert {name for name in shipment.files if name.startswith("my_lab")} == {
        "my_lab/__init__.py",
        "my_lab/table.csv",
        "my_lab/deep/__init__.py",
        "my_lab/deep/method.py",
        "my_lab/data_code/__init__.py",
        "my_lab-2.0.dist-info/METADATA",
        "my_lab-2.0.dist-info/entry_points.txt",
        "my_lab-2.0.dist-info/git_states.json",
    }
    assert sorted(shipment.left_out) == [
        "my_lab/data/", "my_lab/runs.db", "my_lab/runs.sqlite3-wal", "my_lab/weights.pt",
    ]  # fmt: skip
    assert [p.partition(" ")[0] for p in shipment.packages] == [
        "bhnbench", "bhnbench-doubles", "my-lab",
    ]  # fmt: skip


def test_packages_that_a_sweep_does_not_name_stay(outside: Path, tmp_path: Path) -> None:
    shipment = gather(sweep_of(tmp_path, DOUBLES))
    assert not [name for name in shipment.files if name.startswith("my_lab")]
    assert "bhnbench_methods/mc_dropout.py" in shipment.files
    assert "bhnbench_tasks/datasets/uci_files.tsv" in shipment.files


def test_an_installed_package_goes_as_its_author_ships_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    (site / "lab" / "data").mkdir(parents=True)
    (site / "lab" / "__init__.py").touch()
    (site / "lab" / "data" / "prior.npz").write_bytes(b"as shipped")
    (site / "lab" / "notes.txt").write_text("put here later")
    (site / "lab-1.dist-info").mkdir()
    for name, text in {
        "METADATA": "Metadata-Version: 2.1\nName: lab\nVersion: 1\n",
        "entry_points.txt": "[bhnbench.methods]\nlab = bhnbench_doubles.methods:Constant\n"
        "[console_scripts]\nlab = lab:main\n",
        "RECORD": "lab/__init__.py,,\nlab/data/prior.npz,,\n../bin/lab,,\n"
        "lab-1.dist-info/RECORD,,\n",
    }.items():
        (site / "lab-1.dist-info" / name).write_text(text)
    monkeypatch.syspath_prepend(str(site))
    plugins.installed.cache_clear()
    shipment = gather(sweep_of(tmp_path, "name: demo\ntasks: [guess]\nmethods: [lab]\n"))
    plugins.installed.cache_clear()
    assert {n for n in shipment.files if n.startswith("lab/")} == {
        "lab/__init__.py", "lab/data/prior.npz",
    }  # fmt: skip


def test_what_was_packed_works_by_itself_and_knows_its_commit(tmp_path: Path) -> None:
    archive = tmp_path / "job.zip"
    size = gather(sweep_of(tmp_path, DOUBLES)).pack(archive)
    assert size == archive.stat().st_size < 2 * 2**20
    zipfile.ZipFile(archive).extractall(tmp_path / "node")
    done = subprocess.run(
        [sys.executable, "-c", LISTING],
        cwd=tmp_path, env={"PYTHONPATH": str(tmp_path / "node")},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert found["method"] == "Constant"
    assert all(file.startswith(str(tmp_path / "node")) for file in found["files"])
    here = Path(__file__).parent
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=False
    )
    assert (
        found["git"] is None if commit.returncode else found["git"]["commit"] == commit.stdout[:-1]
    )


def test_the_same_content_gives_the_same_archive(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, DOUBLES)
    gather(sweep).pack(tmp_path / "a.zip")
    gather(sweep).pack(tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_too_much_is_refused_and_the_largest_files_named(outside: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).bytes(3 * 2**20)  # does not compress
    (outside / "my_lab" / "deep" / "vocabulary.txt").write_bytes(noise)
    shipment = gather(sweep_of(tmp_path, "name: demo\ntasks: [guess]\nmethods: [mine]\n"))
    with pytest.raises(JobError) as caught:
        shipment.pack(tmp_path / "job.zip", limit=2 * 2**20)
    said = str(caught.value)
    assert re.match(r"what a job .* below 2\.0 MiB packed, but is 3\.\d MiB; have", said)
    assert "$BHNBENCH_DATA say: my_lab/deep/vocabulary.txt (3.0 MiB), bhnbench" in said


def test_the_sweep_goes_with_its_options_and_the_files_that_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    rng = np.random.default_rng(0)
    for place in (tmp_path / "my own.npz", tmp_path / "here" / "near.npz"):
        images = rng.integers(0, 256, (40, 4, 4), dtype=np.uint8)
        np.savez(place, inputs=images, targets=np.arange(40) % 4)
    sweep = sweep_of(
        tmp_path,
        "name: demo\ntasks:\n- {name: digit_classification, dataset: near.npz}\n"
        "- {name: digit_classification, dataset: ../my own.npz}\n"
        "methods: [{name: mc_dropout, rate: 1e-1}]\n",
        ("evaluate.seeds=7",),
    )
    shipment = gather(sweep)
    outside = next(name for name in shipment.files if name.startswith("files/"))
    assert outside.endswith("-my_own.npz")
    assert shipment.files[outside] == Path("../my own.npz").absolute()
    shipment.pack(tmp_path / "job.zip")
    node = tmp_path / "node"
    zipfile.ZipFile(tmp_path / "job.zip").extractall(node)
    monkeypatch.chdir(node)
    there = read_sweep(node / "sweep.yaml")
    assert there.n_seeds == 7
    assert [study.key for study in there.studies] == [study.key for study in sweep.studies]
    assert [study.task.settings["dataset"] for study in there.studies] == ["near.npz", outside]
