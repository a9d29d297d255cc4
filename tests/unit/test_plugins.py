"""Plugins: found by entry point, imported only when they are needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from bhnbench_doubles.methods import Constant
from bhnbench_doubles.tasks import Guess

from bhnbench import plugins
from bhnbench.errors import ContractError, UnknownPluginError
from bhnbench.plugins import Plugin, find_plugin, installed, load_method, load_target, load_task

HEAVY = ("torch", "ray", "mlflow", "sklearn", "optuna", "bhnbench_methods", "bhnbench_tasks")


@pytest.fixture
def fresh_listing():
    """Entry points are looked up anew, before and after."""
    installed.cache_clear()
    yield
    installed.cache_clear()


@pytest.fixture
def package(tmp_path, monkeypatch, fresh_listing):
    """Install a package of somebody else's: entry points, and modules by name."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(entries: str, **modules: str) -> Path:
        info = tmp_path / "stranger-2.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 2.5\n")
        (info / "entry_points.txt").write_text(f"[bhnbench.methods]\n{entries}\n")
        for name, content in modules.items():
            (tmp_path / f"{name}.py").write_text(content)
        return tmp_path

    return install


def test_doubles_and_our_own_come_in_by_the_same_door():
    assert load_method("constant") is Constant
    assert load_task("guess") is Guess
    ours = find_plugin("method", "bayesian_hypernet")
    assert ours.package == "bhnbench"
    assert ours.target == "bhnbench_methods.bayesian_hypernet:BayesianHypernet"


def test_listing_and_describing_in_a_line_import_nothing():
    code = (
        "import sys; from bhnbench.plugins import installed\n"
        "for kind in ('method', 'task'):\n"
        "    for plugin in installed(kind).values(): plugin.summary, plugin.source_digest\n"
        f"print(*[name for name in {HEAVY} if name in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert set(found.stdout.split()) <= {"bhnbench_methods", "bhnbench_tasks"}  # empty packages


def test_a_stranger_is_listed_with_its_package(package):
    folder = package("mine = stranger:Mine", stranger='"""What it is.\n\nMore."""\nx = 1 / 0\n')
    plugin = find_plugin("method", "mine")
    expected = Plugin("method", "mine", "stranger:Mine", "stranger", "2.5")
    assert plugin == expected
    assert plugin.summary == "What it is."  # read, not run: it would divide by zero
    assert plugin.source_path == folder / "stranger.py"
    assert len(plugin.source_digest) == 64


def test_two_packages_must_not_give_one_name(package):
    package("constant = stranger:Mine")
    with pytest.raises(ContractError) as caught:
        installed("method")
    for part in ("'constant'", "bhnbench-doubles", "stranger", "uninstall one of them"):
        assert part in str(caught.value)


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UnknownPluginError, match="no method 'mc_droput' is installed; did you "):
        find_plugin("method", "mc_droput")
    with pytest.raises(UnknownPluginError, match=r"known: .*active_learning.*toy_regression"):
        find_plugin("task", "zzz")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("import no_such_module", "No module named 'no_such_module'"),
        ("def broken(:", "invalid syntax"),
        ("", "has no attribute 'Mine'"),
        ("class Mine: ...", "must be a subclass of Method"),
        ("Mine = 3", "must be a subclass of Method"),
        ("from bhnbench.contract import Task as Mine", "must be a subclass of Method"),
    ],
)
def test_a_plugin_that_does_not_load_says_why(package, monkeypatch, content, reason):
    package("mine = odd_one:Mine", odd_one=content)
    monkeypatch.delitem(sys.modules, "odd_one", raising=False)
    with pytest.raises(ContractError, match="method odd_one:Mine: ") as caught:
        load_method("mine")
    assert reason in str(caught.value)
    monkeypatch.delitem(sys.modules, "odd_one", raising=False)


def test_a_plugin_whose_module_is_gone_is_still_listed(package):
    package("mine = gone.away:Mine")
    assert "cannot be read: gone.away: cannot be found" in installed("method")["mine"].summary
    with pytest.raises(ContractError, match="cannot be imported"):
        load_target("method", "gone.away:Mine")


def test_a_module_that_cannot_be_parsed_is_still_listed(package):
    package("mine = torn:Mine", torn="def broken(:")
    assert installed("method")["mine"].summary.startswith("cannot be read: ")


def test_a_worker_loads_by_target_without_entry_points(monkeypatch):
    monkeypatch.setattr(plugins, "entry_points", lambda **_: pytest.fail("looked up"))
    assert load_target("method", "bhnbench_doubles.methods:Constant") is Constant
