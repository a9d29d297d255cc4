"""`bhnbench data`: what it lists, fetches, checks and finds, and what it says of what is wrong."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from bhnbench_doubles.mirrors import Mirrors
from click.testing import CliRunner, Result

from bhnbench.cli.main import main
from bhnbench.contract import DataSource
from bhnbench.errors import ContractError
from bhnbench.plugins import installed, load_source

CONTENT = b"the content"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MODULE = """
from bhnbench.contract import DataFile
from bhnbench_tasks.datasets.source import Source

def make(name):
    files = tuple(DataFile(f"{{name}}/{{part}}", "sha256:{sha256}", {size}) for part in "ab")
    return Source(doc=f"{{name}}: two files", origin="nobody", load=lambda: 0, files=files,
                  mirrors=("{url}",))

MINE, YOURS = make("mine"), make("yours")
BUNDLED = Source(doc="Bundled: nothing to fetch", origin="nobody", load=lambda: 0)
WRONG = "no data set"
"""
ENTRIES = "mine = stranger:MINE\nyours = stranger:YOURS\nbundled = stranger:BUNDLED\n"


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["data", *map(str, arguments)], prog_name="bhnbench")


@pytest.fixture
def mirrors(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirrors]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running = Mirrors()
    yield running
    running.close()


@pytest.fixture
def folder(tmp_path: Path, mirrors: Mirrors, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The user's data folder; a stranger's data sets are installed, the cache is empty."""
    monkeypatch.syspath_prepend(str(tmp_path))
    url = mirrors.add("good", CONTENT)
    text = MODULE.format(sha256=SHA256, size=len(CONTENT), url=url)
    (tmp_path / "stranger.py").write_text(text)
    info = tmp_path / "stranger-2.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 2.5\n")
    (info / "entry_points.txt").write_text(f"[bhnbench.datasets]\n{ENTRIES}")
    monkeypatch.setenv("BHNBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    installed.cache_clear()
    yield tmp_path / "data"
    installed.cache_clear()
    sys.modules.pop("stranger", None)


@pytest.fixture
def cache(folder: Path) -> Path:
    """The cache of this test's own."""
    return load_source("mine").folders[-1]


def declare(folder: Path, entry: str) -> None:
    file = folder.parent / "stranger-2.5.dist-info" / "entry_points.txt"
    file.write_text(f"{file.read_text()}{entry}\n")
    installed.cache_clear()


def put(folder: Path, *paths: str, content: bytes = CONTENT) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


def test_the_list_says_what_is_here(folder: Path) -> None:
    put(folder, "mine/a")
    lines = call("list").output.splitlines()
    rows = {row[1]: row for row in (re.split(r"\s*│\s*", line) for line in lines) if len(row) > 2}
    assert rows["mine"][2:7] == ["mine: two files", "2", "0.0", "1 file", "stranger 2.5"]
    assert rows["yours"][5] == "no"
    assert rows["bundled"][3:6] == ["", "", "yes"]
    assert rows["mnist"][2].startswith("MNIST: ")
    assert rows["mnist"][3:5] == ["4", "11.6"]
    assert rows["digits"][5] == "yes"


def test_the_list_as_json(folder: Path) -> None:
    put(folder, "mine/a")
    rows = {row["name"]: row for row in json.loads(call("list", "--json").output)}
    assert set(rows) == set(installed("dataset"))
    mine = rows["mine"]
    assert (mine["doc"], mine["origin"], mine["here"]) == ("mine: two files", "nobody", "1 file")
    assert (mine["package"], mine["target"]) == ("stranger", "stranger:MINE")
    digest = f"sha256:{SHA256}"
    assert mine["files"] == [
        {"path": "mine/a", "digest": digest, "size": 11, "at": str(folder / "mine/a")},
        {"path": "mine/b", "digest": digest, "size": 11, "at": None},
    ]


@pytest.mark.parametrize(
    "arguments", [["list"], ["where"], ["where", "mnist"], ["list", "--json"]]
)
def test_listing_imports_nothing_heavy(arguments: list[str]) -> None:
    heavy = ("torch", "ray", "mlflow", "sklearn", "numpy", "sqlalchemy", "pydantic", "requests")
    code = f"""
import sys
from click.testing import CliRunner
from bhnbench.cli.main import main
result = CliRunner().invoke(main, ["data", *{arguments!r}])
assert result.exit_code in (0, 1) and result.output, result.output
print([m for m in {heavy!r} if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_data_set_that_cannot_be_imported_hides_no_other(folder: Path) -> None:
    declare(folder, "gone = gone.away:SOURCE")
    rows = {row["name"]: row for row in json.loads(call("list", "--json").output)}
    assert rows["gone"]["here"] == "broken"
    assert "cannot be imported: ModuleNotFoundError" in rows["gone"]["doc"]
    assert rows["mine"]["here"] == "no"
    assert call("where").exit_code == 0
    put(folder, "mine/a")
    verified = call("verify")
    assert "mine: 1 of 2 files, all right" in verified.stdout.splitlines()
    assert (verified.exit_code, verified.stderr.count("\n")) == (1, 1)
    fetched = call("fetch", "gone")
    assert (fetched.exit_code, fetched.stderr.count("\n")) == (1, 1)


def test_a_data_set_must_be_one(folder: Path) -> None:
    declare(folder, "wrong = stranger:WRONG")
    with pytest.raises(ContractError, match="dataset stranger:WRONG: must be a DataSource"):
        load_source("wrong")
    assert isinstance(load_source("mine"), DataSource)


def test_fetch_downloads_what_is_missing(folder: Path, cache: Path, mirrors: Mirrors) -> None:
    put(folder, "mine/a")
    done = call("fetch", "mine", "yours", "bundled")
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "mine: 2 files, all right",
        "yours: 2 files, all right",
        "bundled: comes with an installed package, all right",
    ]
    assert done.stderr == ""  # no terminal, no bar
    assert [path for path, _ in mirrors.requests] == ["/good/b", "/good/a", "/good/b"]
    assert (cache / "yours" / "a").read_bytes() == CONTENT
    assert not (folder / "yours").exists()  # the user's folder is never written to
    assert call("fetch", "mine").exit_code == 0
    assert len(mirrors.requests) == 3


def test_fetch_goes_on_after_a_failure_and_tells_it(folder: Path, mirrors: Mirrors) -> None:
    put(folder, "mine/a", content=b"something else")
    done = call("fetch", "mine", "yours")
    assert done.exit_code == 1
    assert done.stdout.splitlines() == ["yours: 2 files, all right"]
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {folder / 'mine/a'}: sha256 must be {SHA256}, but got ")
    assert "(14 bytes instead of 11); delete it and run again" in line
    mirrors.add("good", status=404)
    (line,) = call("fetch", "mine").stderr.splitlines()
    put(folder, "mine/a")
    (line,) = call("fetch", "mine").stderr.splitlines()
    assert "mine/b: not on this machine, and cannot be downloaded" in line
    assert "HTTP status 404" in line


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    for command in ("fetch", "verify", "where"):
        done = call(command, "minst")
        assert done.exit_code == 2
        assert done.stderr == "error: no dataset 'minst' is installed; did you mean 'mnist'?\n"
    assert "Missing argument 'NAME...'" in call("fetch").stderr


def test_verify_checks_what_is_here(folder: Path, mirrors: Mirrors) -> None:
    put(folder, "mine/a", "yours/a", "yours/b")
    done = call("verify")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert "mine: 1 of 2 files, all right" in lines
    assert "yours: 2 files, all right" in lines
    assert "digits: comes with an installed package, all right" in lines
    assert not any(line.startswith("mnist") for line in lines)  # nothing of it is here
    put(folder, "yours/a", "yours/b", content=b"")
    done = call("verify")
    assert done.exit_code == 1
    assert done.stderr.count("error: ") == done.stderr.count("\n") == 2
    assert mirrors.requests == []


def test_verify_of_a_name_wants_all_of_it(folder: Path, cache: Path, mirrors: Mirrors) -> None:
    put(folder, "mine/a")
    done = call("verify", "mine")
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    for part in ("mine/b: not on this machine", str(folder), str(cache), SHA256):
        assert part in line
    put(cache, "mine/b")
    assert call("verify", "mine").stdout == "mine: 2 files, all right\n"
    assert mirrors.requests == []


def test_where_shows_the_files(folder: Path, cache: Path) -> None:
    put(folder, "mine/a")
    done = call("where", "mine")
    assert done.exit_code == 1
    assert done.stdout == f"{folder / 'mine/a'}\n"
    assert done.stderr == (
        f"error: mine/b: not in {folder} nor in {cache}; `bhnbench data fetch mine` gets it\n"
    )
    put(cache, "mine/b")
    assert call("where", "mine").stdout.splitlines() == [
        str(folder / "mine/a"), str(cache / "mine/b"),
    ]  # fmt: skip
    content = json.loads(call("where", "mine", "--json").output)
    assert content["files"]["mine/b"] == str(cache / "mine/b")
    assert call("where", "bundled").stdout == "bundled: comes with an installed package\n"


def test_where_shows_the_folders(folder: Path, cache: Path) -> None:
    put(folder, "mine/a", "yours/a")
    put(cache, "mine/b")
    lines = call("where").stdout.splitlines()
    assert lines == [f"{folder}: mine, yours", f"{cache}: mine"]
    content = json.loads(call("where", "--json").output)
    assert content[1] == {"folder": str(cache), "datasets": ["mine"]}


def test_the_schema_admits_files_of_the_users() -> None:
    schema = json.loads(CliRunner().invoke(main, ["schema"]).output)
    (variant,) = [
        v
        for v in schema["properties"]["tasks"]["items"]["oneOf"]
        if v.get("title") == "digit_classification"
    ]
    named, file = variant["properties"]["dataset"]["anyOf"]
    assert "kmnist" in named["enum"]
    assert re.search(file["pattern"], "data/mine.npz")
    assert not re.search(file["pattern"], "minst")


def test_a_wrong_file_in_a_sweep_is_told_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.npz").write_bytes(b"no zip file")
    (tmp_path / "sweep.yaml").write_text(
        "name: mine\ntasks:\n  - {name: digit_classification, dataset: mine.npz}\n"
        "methods: [constant, {name: constant, x: 7}]\n"
    )
    done = CliRunner().invoke(main, ["plan", "sweep.yaml"])
    assert done.exit_code == 2
    first, second = done.stderr.splitlines()
    assert first.startswith("sweep.yaml:3: tasks[0]: mine.npz: must be a whole .npz file")
    assert second.startswith("sweep.yaml:4: methods[1].x: ")
