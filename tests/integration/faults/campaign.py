"""One sweep, many faults: nothing may be lost, and nothing done twice.

    python -m tests.integration.faults.campaign --faults 100 --seed 0

Starts a cluster of three hosts with PostgreSQL and MLflow, lets a sweep of many short runs go on
it, and breaks something at random moments: see ``kinds.py``. The driver is started again whenever
it ends before the sweep does. In the end the laws of ``verdict.py`` are checked, and what happened
is counted.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from bhnbench_doubles.paced import LOG, PACE, read_notes

from bhnbench.ledger.ledger import Ledger
from tests.integration.cluster.hosts import environment, shared_folder, wait_until
from tests.integration.cluster.lab import BHNBENCH, Lab, open_lab
from tests.integration.cluster.ledgers import SweptStudy, swept_studies
from tests.integration.faults.audit import Audit
from tests.integration.faults.driver import DriverLoop
from tests.integration.faults.kinds import KINDS, NEED_NAMESPACES, Scene
from tests.integration.faults.verdict import (
    Evidence,
    Law,
    counts,
    laws,
    shown_in_mlflow,
)

SWEEP = """\
name: faults
tasks: [{{name: paced, n_steps: 5}}]
methods:
  - constant
  - {{name: constant, x: 0.1, label: fixed}}
search: {{sampler: {sampler}, trials: {trials}}}
evaluate: {{seeds: {seeds}}}
"""
SECONDS = 0.3  # of a step while faults come
PATIENCE = 240.0  # for the next run to be done after a fault
HOME_MB = 64


@dataclass(frozen=True)
class Plan:
    """What a campaign is to be."""

    n_faults: int
    seed: int = 0
    kinds: Sequence[str] = tuple(KINDS)
    n_workers: int = 2
    sampler: str = "random"
    pause: float = 5.0  # the longest between a sign of life and the next fault

    @property
    def document(self) -> str:
        """The sweep: large enough to outlast the faults."""
        size = 4 * self.n_faults + 4
        return SWEEP.format(sampler=self.sampler, trials=size, seeds=size)

    @property
    def determined(self) -> bool:
        """Whether the search must try what it tries elsewhere: TPE does with one run at a time."""
        return self.sampler == "random" or self.n_workers == 1


@dataclass
class Report:
    """What came of it."""

    evidence: Evidence | None = None
    laws: list[Law] = field(default_factory=list)
    planned: list[str] = field(default_factory=list)  # kinds, in order
    faults: list[tuple[str, str]] = field(default_factory=list)  # kind, what was done
    exit_codes: Counter[int] = field(default_factory=Counter)
    counts: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    last_words: str = ""

    @property
    def broken(self) -> list[Law]:
        """The laws that do not hold."""
        return [law for law in self.laws if law.broken]

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"{len(self.faults)} faults in {self.seconds:.0f} s: " + _counted(
            Counter(kind for kind, _ in self.faults)
        )
        yield "drivers ended with exit code " + _counted(self.exit_codes)
        yield from (f"{count} {what}" for what, count in self.counts.items())
        for text, broken in self.laws:
            yield f"{text}: " + (f"NO, {len(broken)}: {list(broken)[:5]}" if broken else "yes")


def run_campaign(plan: Plan) -> Report:
    """Do it all."""
    started, report = time.monotonic(), Report()
    random = Random(plan.seed)
    with _prepared_lab(plan) as lab:
        audit = Audit(lab.postgres.local_url("ledger"))
        audit.install()
        driver = DriverLoop(lab, lab.folder / "sweep.yaml")
        driver.start()
        try:
            _break_things(Scene(lab, driver, random), plan, audit, report)
            (lab.folder / "pace").write_text("0")
            driver.done.wait(20 * PATIENCE)
        finally:
            driver.stop()
        report.exit_codes, report.last_words = driver.exit_codes, driver.last_words()
        report.evidence = evidence = _gather(lab, plan, audit)
        audit.close()
    report.laws, report.counts = list(laws(evidence)), counts(evidence)
    report.seconds = time.monotonic() - started
    return report


@contextmanager
def _prepared_lab(plan: Plan) -> Iterator[Lab]:
    """A cluster whose runs keep a given pace, an empty ledger, a small disk for the home."""
    with shared_folder() as folder:
        (folder / "pace").write_text(str(SECONDS))
        (folder / "sweep.yaml").write_text(plan.document)
        variables = {LOG: str(folder / "notes"), PACE: str(folder / "pace")}
        with open_lab(folder, variables, n_workers=plan.n_workers) as lab:
            head, network = lab.cluster.network.hosts["head"], lab.cluster.network
            head.run(["mkdir", lab.home]).check_returncode()
            if network.may_be_cut:
                size = f"size={HOME_MB}m"
                mounted = head.run(["mount", "-t", "tmpfs", "-o", size, "home", lab.home])
                mounted.check_returncode()
            Ledger(lab.postgres.local_url("ledger"), create=True).close()
            yield lab


def _break_things(scene: Scene, plan: Plan, audit: Audit, report: Report) -> None:
    report.planned = _order(scene, plan)
    for kind in report.planned:
        if not _wait_for_progress(scene, audit):
            return
        scene.wait(plan.pause)
        what = KINDS[kind](scene)
        report.faults.append((kind, what))
        print(f"fault {len(report.faults)}: {kind}: {what}", file=sys.stderr, flush=True)


def _order(scene: Scene, plan: Plan) -> list[str]:
    """Each kind once before any comes twice; as many as planned."""
    kinds = list(plan.kinds)
    if not scene.lab.cluster.network.may_be_cut:
        kinds = [kind for kind in kinds if kind not in NEED_NAMESPACES]
    scene.random.shuffle(kinds)
    more = plan.n_faults - len(kinds)
    return kinds[: plan.n_faults] + scene.random.choices(kinds, k=max(0, more))


def _wait_for_progress(scene: Scene, audit: Audit) -> bool:
    """Until one more run is done; False where the sweep is over, or stands still."""
    before = audit.n_done()
    try:
        wait_until(
            lambda: scene.driver.done.is_set() or audit.n_done() > before,
            PATIENCE, "one more run", pause=0.2,
        )  # fmt: skip
    except TimeoutError:
        return False
    return not scene.driver.done.is_set()


def _gather(lab: Lab, plan: Plan, audit: Audit) -> Evidence:
    """Have MLflow repaired, run the same sweep where nothing goes wrong, and look at both."""
    synced = lab.bhnbench("sync")
    if synced.returncode:
        raise RuntimeError(f"bhnbench sync: {synced.stderr}")
    home = lab.folder / "calm"
    return Evidence(
        studies=swept_studies(lab.postgres.local_url("ledger")),
        changes=audit.changes(),
        notes=read_notes(lab.folder / "notes"),
        shown=shown_in_mlflow(lab.mlflow.store, "faults"),
        calm=_calm(lab, home, plan),
        determined=plan.determined,
    )


def _calm(lab: Lab, home: Path, plan: Plan) -> list[SweptStudy]:
    one_at_a_time = ["--set", f"resources.cpu={os.cpu_count()}"] if plan.n_workers == 1 else []
    command = [*BHNBENCH, "sweep", lab.folder / "sweep.yaml", *one_at_a_time, "--home", home]
    variables = environment(**{LOG: str(home) + ".notes", PACE: str(lab.folder / "pace")})
    subprocess.run(command, env=variables, capture_output=True, check=True)
    return swept_studies(f"sqlite:///{home}/ledger.db")


def _counted(counter: Counter[Any]) -> str:
    return ", ".join(f"{key} x {count}" for key, count in sorted(counter.items()))


def main() -> int:
    """Print what came of it; returns 0 where every law holds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--faults", type=int, default=len(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--workers", type=int, default=2, help="hosts, one run at a time on each")
    parser.add_argument("--pause", type=float, default=5.0, help="longest, before a fault")
    parser.add_argument("--sampler", choices=["random", "tpe"], default="random")
    given = parser.parse_args()
    report = run_campaign(
        Plan(given.faults, given.seed, given.kinds, given.workers, given.sampler, given.pause)
    )
    print("\n".join(report.lines()))
    if report.broken or len(report.faults) < len(report.planned):
        print(report.last_words, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
