"""Who holds a home, and what a killed driver leaves in it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from bhnbench.errors import BhnbenchError
from bhnbench.home import Home

HOLD = """
import sys
from pathlib import Path
from bhnbench.home import Home
home = Home(Path(sys.argv[1]))
with home.locked(), home.scratch() as scratch:
    (scratch / "trial").mkdir()
    print(scratch, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def hold(home: Home) -> subprocess.Popen[str]:
    """A process that holds the home as a driver does, once this returns."""
    command = [sys.executable, "-c", HOLD, str(home.folder)]
    process = subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


def test_a_home_is_driven_while_a_process_holds_it_however_it_ends(home: Home) -> None:
    assert not home.may_be_driven
    assert not home.folder.exists()  # looking makes nothing
    process = hold(home)
    assert home.may_be_driven
    rule = f"one sweep at a time, but process {process.pid} runs one here"
    with pytest.raises(BhnbenchError, match=re.escape(rule)), home.locked():
        pass
    process.kill()
    process.communicate()
    assert not home.may_be_driven
    with home.locked():
        assert home.may_be_driven
    assert not home.may_be_driven


def test_looking_does_not_lock_anybody_out(home: Home) -> None:
    with home.locked():
        pass
    code = "import sys; from pathlib import Path; from bhnbench.home import Home\n"
    code += "while True: Home(Path(sys.argv[1])).may_be_driven"
    looking = subprocess.Popen([sys.executable, "-c", code, str(home.folder)])
    try:
        for _ in range(200):
            with home.locked():
                pass
    finally:
        looking.kill()
        looking.wait()


def test_a_ledger_that_other_homes_may_share_may_be_driven(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BHNBENCH_LEDGER", "postgresql+psycopg://server/ledger")
    assert home.may_be_driven


def test_what_a_killed_driver_left_goes_at_the_next_start(home: Home) -> None:
    process = hold(home)
    process.kill()
    process.communicate()
    left = list(home.folder.glob("scratch-*/trial"))
    assert len(left) == 1
    mine = home.folder / "notes"
    mine.mkdir()
    with home.locked(), home.scratch() as scratch:
        assert scratch.is_dir()
        assert not left[0].parent.exists()
    assert sorted(path.name for path in home.folder.iterdir()) == ["driver.lock", "notes"]
