"""A driver that carries 10 000 runs: does its memory, its files or its time a run grow?

One `bhnbench sweep` of runs that do nothing, with real Ray, ledger and MLflow, watched from
outside: each line that it prints is a run that has landed.

Run: python -m tests.benchmarks.long_sweep [RUNS]
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from tests.benchmarks._cases import show
from tests.benchmarks.engine import CPU, environment, sweep_command

TASKS, METHODS, SEEDS = 10, 4, 5  # 40 studies
WINDOW = 100  # runs over which a rate is taken


@dataclass(frozen=True)
class Sample:
    """What was seen when so many runs had landed."""

    n_runs: int
    seconds: float  # since the first
    driver_mb: float
    others_mb: float  # workers and Ray's own processes
    n_files: int  # in the home, and in Ray's folder of this session
    ms_a_run: float  # over the window that ended here
    cpu_ms_a_run: float  # of the driver's own processor time, which other work does not stretch


def write_sweep(folder: Path, n_runs: int) -> Path:
    """Forty studies of equal size."""
    trials = n_runs // (TASKS * METHODS) - SEEDS
    tasks = [f"{{name: guess, label: t{n}, target: {n / TASKS}}}" for n in range(TASKS)]
    spaces = [f"{{x: {{min: 0.0, max: {1 - n / 10}}}}}" for n in range(METHODS)]
    methods = [f"{{name: constant, label: m{n}, parameters: {x}}}" for n, x in enumerate(spaces)]
    path = folder / "sweep.yaml"
    path.write_text(
        f"name: long\ntasks: [{', '.join(tasks)}]\nmethods: [{', '.join(methods)}]\n"
        f"search: {{sampler: random, trials: {trials}}}\nevaluate: {{seeds: {SEEDS}}}\n"
        f"resources: {{cpu: {CPU}}}\n"
    )
    return path


def watch(path: Path, home: Path, temporary: Path) -> Iterator[Sample]:
    """A sample a hundred runs, and the last one."""
    process = subprocess.Popen(
        sweep_command(path, home),
        env=environment() | {"RAY_TMPDIR": str(temporary)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    first = before = cpu_before = 0.0
    n_runs = 0
    for line in process.stderr or ():
        if not line.startswith("["):
            print(line, end="", file=sys.stderr)
            continue
        n_runs += 1
        now = time.perf_counter()
        if n_runs == 1:
            first = before = now
            cpu_before = cpu_seconds(process.pid)
        elif n_runs % WINDOW == 0:
            n_files = count_files(home) + count_files(temporary)
            driver, others = memory(process.pid)
            cpu = cpu_seconds(process.pid)
            rates = 1000 * (now - before) / WINDOW, 1000 * (cpu - cpu_before) / WINDOW
            yield Sample(n_runs, now - first, driver, others, n_files, *rates)
            before, cpu_before = time.perf_counter(), cpu
    if process.wait():
        raise SystemExit(f"the sweep failed with exit code {process.returncode}")


def count_files(folder: Path) -> int:
    """All files below a folder."""
    return sum(len(files) for _, _, files in os.walk(folder))


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> tuple[float, float]:
    """Proportional set size of the driver, and of all processes below it, in MB."""
    below: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:  # it has ended
                continue
            below.setdefault(parent, []).append(int(entry.name))
    others, waiting = 0.0, list(below.get(pid, ()))
    while waiting:
        child = waiting.pop()
        waiting += below.get(child, ())
        others += _own_memory(child)
    return _own_memory(pid), others


def _own_memory(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1000


def main() -> None:
    """Print the course, and what it comes to."""
    n_runs = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    samples: list[Sample] = []
    with tempfile.TemporaryDirectory(prefix="bhn") as name:
        folder = Path(name)
        for sample in watch(write_sweep(folder, n_runs), folder / "home", folder / "ray"):
            samples.append(sample)
            if sample.n_runs % max(WINDOW, n_runs // 20) == 0:
                print(sample, flush=True)
    early = next(sample for sample in samples if sample.n_runs >= min(1000, n_runs // 2))
    last, at_100, tail = samples[-1], samples[0], samples[-10:]
    late = mean(sample.ms_a_run for sample in tail)
    cpu_late = mean(sample.cpu_ms_a_run for sample in tail)
    rows = [
        ["driver's memory, MB", early.driver_mb, last.driver_mb, "at most 1.2"],
        ["other processes' memory, MB", early.others_mb, last.others_mb, ""],
        ["files", early.n_files, last.n_files, "no more a run"],
        ["ms a run (first 100; last 1000)", at_100.ms_a_run, late, "at most 1.5"],
        ["the driver's processor, ms a run", at_100.cpu_ms_a_run, cpu_late, ""],
    ]
    show(
        f"{last.n_runs} runs in {last.seconds:.0f} s",
        ["", f"at {early.n_runs}", "in the end", "ratio", "wanted"],
        [[what, f"{a:.1f}", f"{b:.1f}", f"{b / a:.2f}", wish] for what, a, b, wish in rows],
    )


if __name__ == "__main__":
    main()
