"""`bhnbench plot`: the files it writes, and what it says where it cannot."""

from __future__ import annotations

import json
import sqlite3
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


def test_a_sweep_is_found_by_its_file(home: Path, tmp_path: Path) -> None:
    (tmp_path / "any.yaml").write_text("name: demo\ntasks: [guess]\nmethods: [constant]\n")
    by_file, by_name = (
        call("plot", given, "--home", home, "--format", "svg")
        for given in (tmp_path / "any.yaml", "demo")
    )
    assert by_file.exit_code == 0, by_file.output
    assert by_file.stdout == by_name.stdout
    missing = call("plot", tmp_path / "none.yaml", "--home", home)
    assert missing.exit_code == 1
    assert "none.yaml' in the ledger; " in missing.stderr


def test_plot_says_where_it_cannot_write(home: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = call("plot", "--home", home, "--out", tmp_path / "file")
    assert result.exit_code == 1
    assert "figures cannot be written" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_name_in_a_ledger_of_others_leads_nowhere(home: Path) -> None:
    with sqlite3.connect(home / "ledger.db") as ledger:
        ledger.execute("UPDATE sweeps SET name = '../../../escaped'")
        ledger.execute("UPDATE sweep_studies SET task_label = '/../' || task_label")
    ledger.close()
    before = {path for path in home.parent.rglob("*") if home / "figures" not in path.parents}
    result = call("plot", "--home", home, "--format", "svg")
    assert result.exit_code == 0, result.output
    assert Path(result.stdout.strip()).parent.parent == home / "figures"
    after = {path for path in home.parent.rglob("*") if home / "figures" not in path.parents}
    assert after - before == {home / "figures"}
