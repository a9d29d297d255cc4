"""Property tests that are the same in every run on any machine; ledgers to rank."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bhnbench_doubles.ranked_sweeps import EXAM, Bench
from hypothesis import HealthCheck, settings

from bhnbench import plugins
from bhnbench.ledger.ledger import Ledger
from bhnbench.sweep.document import read_sweep

settings.register_profile(
    "exact",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("exact")


@pytest.fixture
def exam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A stranger's package stands on the path, as if installed."""
    site = tmp_path / "site"
    info = site / "bhnbench_exam-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "bhnbench_exam.py").write_text(EXAM)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bhnbench-exam\nVersion: 1.0\n")
    entries = "exam = bhnbench_exam:Exam\nunpaintable = bhnbench_exam:Unpaintable\n"
    (info / "entry_points.txt").write_text(f"[bhnbench.tasks]\n{entries}")
    monkeypatch.syspath_prepend(str(site))
    plugins.installed.cache_clear()
    yield
    plugins.installed.cache_clear()
    sys.modules.pop("bhnbench_exam", None)


@pytest.fixture
def bench(exam: None, tmp_path: Path) -> Iterator[Callable[[str], Bench]]:
    """Makes a ledger with one sweep from the text of its document."""
    ledgers: list[Ledger] = []

    def make(text: str) -> Bench:
        path = tmp_path / "sweep.yaml"
        path.write_text(text)
        ledger = Ledger(f"sqlite:///{tmp_path / f'ledger-{len(ledgers)}.db'}", create=True)
        ledgers.append(ledger)
        return Bench(ledger, ledger.record_sweep(read_sweep(path)))

    yield make
    for ledger in ledgers:
        ledger.close()
