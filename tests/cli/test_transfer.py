"""`bhnbench export` and `bhnbench merge`: from one home to another."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

from bhnbench_doubles.command_line import call
from sqlalchemy import create_engine, text

from bhnbench.home import Home


def test_a_home_is_carried_to_another(home: Path, tmp_path: Path) -> None:
    file, other = tmp_path / "lab.zip", tmp_path / "other"
    told = call("export", file).output
    assert re.match(rf"{file}: 1 sweep, 3 studies, 3 trials, 9 runs, \d", told), told
    assert f"take it in with: bhnbench merge {file}\n" in told
    assert call("merge", file, "--home", other, "--dry-run").exit_code == 1  # no ledger, none made
    assert not (other / "ledger.db").exists()
    first = call("merge", file, "--home", other)
    assert first.exit_code == 0
    assert first.output.startswith("new here: 1 sweep, 3 studies, ")
    assert "`bhnbench leaderboard` shows it" in first.output
    again = json.loads(call("merge", file, "--home", other, "--json").output)
    assert set(again["new"].values()) == {0}
    boards = [call("leaderboard", "--home", folder).output for folder in (home, other)]
    assert boards[0] == boards[1]
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        assert {"manifest.json", "runs.jsonl"} <= set(archive.namelist())


def test_a_file_is_not_replaced_unasked(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "lab.zip"
    file.write_text("precious")
    refused = call("export", file)
    assert (refused.exit_code, file.read_text()) == (1, "precious")
    assert "must not be there yet; name another file, or add --force" in refused.output
    content = json.loads(call("export", file, "demo", "1", "--force", "--json").output)
    assert content["rows"]["sweeps"] == 1
    assert content["bytes"] == file.stat().st_size
    unknown = call("export", tmp_path / "new.zip", "dema")
    assert (unknown.exit_code, (tmp_path / "new.zip").exists()) == (1, False)
    assert "did you mean 'demo'?" in unknown.output


def test_other_scores_are_told(home: Path, tmp_path: Path) -> None:
    call("export", tmp_path / "lab.zip")
    engine = create_engine(f"sqlite:///{home / 'ledger.db'}")
    with engine.begin() as connection:
        connection.execute(text("UPDATE scores SET value = value + 1"))
    engine.dispose()
    told = call("merge", tmp_path / "lab.zip").output
    assert re.search(r"\d+ runs done in both with other scores; those here stay:\n", told)
    assert re.search(r"  run \d+ \([0-9a-f]{12}\): closeness is -?\S+ here, -?\S+ there\n", told)
    assert "more; --json lists all" in told
    assert "new here: 0 sweeps, 0 studies" in told


def test_nothing_is_merged_while_a_sweep_runs(home: Path, tmp_path: Path) -> None:
    call("export", tmp_path / "lab.zip")
    with Home(home).locked():
        refused = call("merge", tmp_path / "lab.zip")
        assert call("export", tmp_path / "meanwhile.zip").exit_code == 0
    assert refused.exit_code == 1
    assert "one sweep at a time" in refused.output
