"""What the engine costs: time per run beyond the work itself, and how busy it keeps its slots.

Runs that do nothing, two at a time, in whole processes watched from outside: `bhnbench sweep` with
ledger and MLflow, Ray Tune with its defaults, Ray Tune with reused actors, and plain Ray tasks.
The time a run is that between two runs that come in, the median of many stretches. Then a sweep
of runs that sleep for a second: the sum of their work over slots times wall time.

Run: python -m tests.benchmarks.engine [overhead | efficiency | start]
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median

from bhnbench.ledger.ledger import Ledger
from bhnbench.status import study_statuses
from tests.benchmarks._cases import show

ROOT = Path(__file__).parents[1]
SLOTS = 2
CPU = max(1, (os.cpu_count() or SLOTS) // SLOTS)  # of one run, so that two fill the machine
REPEATS = 3


def write_sweep(folder: Path, n_runs: int, *, seconds: float = 0.0) -> Path:
    """A sweep of ``n_runs`` runs that take ``seconds``: random search and five seeds."""
    steps = f"{{name: guess, n_steps: 1, seconds: {seconds}}}" if seconds else "guess"
    path = folder / "sweep.yaml"
    path.write_text(
        f"name: noop\ntasks: [{steps}]\nmethods: [constant]\n"
        f"search: {{sampler: random, trials: {n_runs - 5}}}\nevaluate: {{seeds: 5}}\n"
        f"resources: {{cpu: {CPU}}}\n"
    )
    return path


def sweep_command(path: Path, home: Path) -> list[str]:
    """`bhnbench sweep`."""
    return [sys.executable, "-m", "bhnbench.cli", "sweep", str(path), "--home", str(home)]


def environment() -> dict[str, str]:
    """With the test doubles, and without the settings of somebody's own ledger or tracker."""
    away = ("BHNBENCH_LEDGER", "MLFLOW_TRACKING_URI", "RAY_ADDRESS")
    kept = {name: value for name, value in os.environ.items() if name not in away}
    paths = filter(None, [str(ROOT / "doubles"), os.environ.get("PYTHONPATH")])
    return kept | {"PYTHONPATH": os.pathsep.join(paths), "RAY_USAGE_STATS_ENABLED": "0"}


def timed(command: list[str]) -> float:
    """Seconds of a whole process."""
    start = time.perf_counter()
    subprocess.run(command, env=environment(), capture_output=True, check=True)
    return time.perf_counter() - start


def landings(command: list[str]) -> list[float]:
    """When each run came in, which every engine here tells by a line that begins with [."""
    process = subprocess.Popen(
        command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    times = [time.perf_counter() for line in process.stderr or () if line.startswith("[")]
    if process.wait():
        raise SystemExit(f"failed with exit code {process.returncode}: {command}")
    return [*times, time.perf_counter()]


@contextmanager
def our_command(n_runs: int) -> Iterator[list[str]]:
    """A whole sweep, with a ledger and MLflow of its own."""
    with tempfile.TemporaryDirectory() as folder:
        yield sweep_command(write_sweep(Path(folder), n_runs), Path(folder) / "home")


BARE = f"""
import os, sys, tempfile
os.environ["RAY_AUTH_MODE"] = "disabled"
n_runs, mode = int(sys.argv[1]), sys.argv[2]
if mode == "reuse":
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
import ray
from ray import tune
ray.init("local", num_cpus={SLOTS}, include_dashboard=False, log_to_driver=False)
def tell():
    print("[done]", file=sys.stderr, flush=True)
"""
TUNE = f"""{BARE}
class Tell(tune.Callback):
    def on_trial_complete(self, *_, **__):
        tell()
def noop(config):
    import torch
    tune.report({{"closeness": -abs(config["x"] - 0.3)}})
with tempfile.TemporaryDirectory() as folder:
    tune.Tuner(noop, param_space={{"x": tune.uniform(0, 1)}},
        tune_config=tune.TuneConfig(metric="closeness", mode="max", num_samples=n_runs,
                                    reuse_actors=mode == "reuse"),
        run_config=tune.RunConfig(storage_path=folder, verbose=0, callbacks=[Tell()])).fit()
"""
TASKS = f"""{BARE}
@ray.remote(num_cpus=1)
def noop(x):
    import torch
    return -abs(x - 0.3)
waiting = [noop.remote(number / n_runs) for number in range({SLOTS})]
for number in range({SLOTS}, n_runs + {SLOTS}):
    (done,), waiting = ray.wait(waiting)
    ray.get(done)
    tell()
    if number < n_runs:
        waiting.append(noop.remote(number / n_runs))
    elif not waiting:
        break
"""


@contextmanager
def ray_command(code: str, mode: str, n_runs: int) -> Iterator[list[str]]:
    """A whole process without bhnbench."""
    yield [sys.executable, "-c", code, str(n_runs), mode]


ENGINES = {  # how to start it with so many runs, how many, and how many make a window
    "bhnbench, ledger and MLflow included": (our_command, 220, 20),
    "plain Ray tasks": (partial(ray_command, TASKS, "tasks"), 220, 20),
    "Ray Tune, reused actors, no loggers": (partial(ray_command, TUNE, "reuse"), 220, 20),
    "Ray Tune, its defaults": (partial(ray_command, TUNE, "defaults"), 16, 4),
}


def show_overhead() -> None:
    """All in turn, several times: a slow spell meets them all."""
    found: dict[str, list[float]] = {name: [] for name in ENGINES}
    ends: dict[str, list[float]] = {name: [] for name in ENGINES}
    for _ in range(REPEATS):
        for name, (start, n_runs, window) in ENGINES.items():
            with start(n_runs) as command:
                *times, end = landings(command)
            found[name] += windows(times, window)
            ends[name].append(end - times[-1])
    ours, *_ = middles = [median(values) for values in found.values()]
    rows = [
        [
            name,
            f"{1000 * middle:.1f}",
            f"{1000 * min(found[name]):.1f} to {1000 * max(found[name]):.1f}",
            f"{middle / ours:.1f}",
            f"{median(ends[name]):.1f}",
        ]
        for name, middle in zip(found, middles, strict=True)
    ]
    show(
        f"runs that do nothing, {SLOTS} at a time (bhnbench: at most 25 ms, defaults 25x wanted)",
        ["engine", "ms a run", "windows", "over bhnbench", "s from last run to exit"],
        rows,
    )


def windows(times: list[float], size: int) -> list[float]:
    """Seconds a run in each stretch of so many runs; while workers start is no stretch."""
    starts = range(size // 2, len(times) - size, size)
    return [(times[start + size] - times[start]) / size for start in starts]


def show_efficiency(n_runs: int = 120) -> None:
    """A sweep of runs of a second; the slots wait for nothing else while they sleep."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        whole = timed(sweep_command(write_sweep(Path(folder), n_runs, seconds=1.0), home))
        with Ledger(f"sqlite:///{home / 'ledger.db'}") as ledger:
            (sweep,) = ledger.sweeps()
            (status,) = study_statuses(ledger, sweep.studies, sweep.n_seeds)
    if status.started_at is None or status.finished_at is None:
        raise SystemExit("no run was executed")
    span = (status.finished_at - status.started_at).total_seconds()
    rows = [
        ["first run's start to last run's end", f"{span:.1f}", _share(status.seconds, span)],
        ["whole command", f"{whole:.1f}", _share(status.seconds, whole)],
    ]
    show(
        f"{status.n_runs} runs of {status.seconds / status.n_runs:.2f} s, {SLOTS} at a time "
        "(first row: at least 95 % wanted)",
        ["span", "seconds", "work / (slots x wall)"],
        rows,
    )


def _share(work: float, wall: float) -> str:
    return f"{100 * work / (SLOTS * wall):.1f} %"


def show_start_up(repeats: int = 15) -> None:
    """`bhnbench --help` and `python -c "import click"`, taken in turn."""
    ours = [str(Path(sys.executable).parent / "bhnbench"), "--help"]
    click = [sys.executable, "-c", "import click"]
    times = [(timed(ours), timed(click)) for _ in range(repeats)]
    help_, bare = (median(values) for values in zip(*times, strict=True))
    rows = [["bhnbench --help", f"{1000 * help_:.0f}", f"{help_ / bare:.2f}"],
            ["python -c 'import click'", f"{1000 * bare:.0f}", "1"]]  # fmt: skip
    show("start (at most 2x wanted)", ["command", "ms", "over click"], rows)


PARTS = {"start": show_start_up, "overhead": show_overhead, "efficiency": show_efficiency}


def main() -> None:
    """Print the parts that are asked for, or all."""
    for name in sys.argv[1:] or PARTS:
        PARTS[name]()


if __name__ == "__main__":
    main()
