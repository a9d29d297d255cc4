"""What the README lists is what there is."""

from __future__ import annotations

import re
from pathlib import Path

from bhnbench.plugins import installed

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_table_of_methods_is_that_of_the_program():
    section = README.partition("## The methods\n")[2].partition("\n\n`bhnbench methods")[0]
    _, _, *listed = section.strip().splitlines()
    ours = (plugin for plugin in installed("method").values() if plugin.package == "bhnbench")
    assert listed == [f"| `{plugin.name}` | {plugin.summary} |" for plugin in ours]


def test_the_table_of_tasks_is_that_of_the_program():
    section = README.partition("## The tasks\n")[2].partition("\n\n`bhnbench tasks")[0]
    _, _, *listed = section.strip().splitlines()
    ours = (plugin for plugin in installed("task").values() if plugin.package == "bhnbench")
    assert listed == [f"| `{plugin.name}` | {plugin.summary} |" for plugin in ours]


def test_the_table_of_ready_sweeps_is_complete():
    listed = re.findall(r"^\| `(sweeps/\w+\.yaml)` \|", README, re.MULTILINE)
    assert sorted(listed) == sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("sweeps/*.yaml"))
