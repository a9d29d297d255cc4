"""The README's own method and task, as printed, in a package outside the repository."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

README = Path(__file__).parents[2] / "README.md"
FILE = re.compile(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", re.DOTALL)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, installed into a folder of its own."""
    folder = tmp_path_factory.mktemp("my-bdl")
    files = dict(FILE.findall(README.read_text()))
    assert set(files) == {
        "my_bdl/sgd_samples.py", "my_bdl/moons.py", "pyproject.toml", "sweep.yaml",
        "test_my_bdl.py", "from_python.py",
    }  # fmt: skip
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    (folder / "my_bdl" / "__init__.py").touch()
    install = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--target", "site", "."]
    subprocess.run([sys.executable, "-m", "pip", *install], cwd=folder, check=True)
    return folder


def call(package: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a module where the package is installed, and the doubles are not."""
    environment = os.environ | {
        "PYTHONPATH": str(package / "site"),
        "BHNBENCH_HOME": str(package / "home"),
    }
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(
        command, cwd=package, env=environment, capture_output=True, text=True, check=False
    )


def test_the_readme_method_is_short() -> None:
    text = dict(FILE.findall(README.read_text()))["my_bdl/sgd_samples.py"]
    lines = text[text.index("@dataclass") :].splitlines()
    assert sum(bool(line.strip()) for line in lines) <= 36  # without imports and blank lines


def test_a_method_works_from_python(package: Path) -> None:
    done = call(package, "from_python")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("(100, 100, 2) {'accuracy': "), done.stdout
    accuracy = float(done.stdout.split("'accuracy': ")[1].split(",")[0])
    assert accuracy > 80  # a guess has 50


def test_it_is_listed_and_described(package: Path) -> None:
    listed = call(package, "bhnbench.cli", "methods")
    assert re.search(r"sgd_samples\s+│ SGD samples: .*│ my-bdl 0\.1", listed.stdout), listed
    described = call(package, "bhnbench.cli", "tasks", "moons", "--json")
    assert json.loads(described.stdout)["metrics"][0]["name"] == "nll"


def test_it_passes_the_suites(package: Path) -> None:
    done = call(package, "pytest", "-q", "-p", "no:cacheprovider", "test_my_bdl.py")
    assert done.returncode == 0, done.stdout
    assert re.search(r"\d\d passed", done.stdout)


def test_it_runs_in_a_sweep_on_workers(package: Path) -> None:
    done = call(package, "bhnbench.cli", "sweep", "sweep.yaml", "--json")
    assert done.returncode == 0, done.stderr
    (task,) = json.loads(done.stdout)["tasks"]
    means = {row["label"]: row["score"]["mean"] for row in task["methods"]}
    assert set(means) == {"sgd_samples", "mc_dropout"}
    assert max(means.values()) < 0.69  # better than a coin: log 2
