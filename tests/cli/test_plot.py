"""`bhnbench plot`: the files it writes, and what it says where it cannot."""

from __future__ import annotations

import json
from pathlib import Path

from bhnbench_doubles.command_line import call


def test_plot_writes_every_figure_in_both_formats(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "elsewhere"
    result = call("plot", "demo", "--home", home, "--out", out)
    assert result.exit_code == 0, result.output
    names = sorted(path.name for path in out.iterdir())
    assert names == ["guess-scores.png", "guess-scores.svg"]
    assert sorted(result.stdout.split()) == [str(out / name) for name in names]
    assert (out / "guess-scores.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (out / "guess-scores.svg").read_bytes()
    one = call("plot", "--home", home, "--format", "svg", "--json")
    (path,) = json.loads(one.stdout)
    assert path == str(home / "figures" / "demo-1" / "guess-scores.svg")


def test_plot_says_where_it_cannot_write(home: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = call("plot", "--home", home, "--out", tmp_path / "file")
    assert result.exit_code == 1
    assert "figures cannot be written" in result.stderr
    assert result.stderr.count("\n") == 1
