"""Time per run beyond the work itself: a sweep of runs that do nothing, beside plain Ray Tune.

Both search random configurations of one hyperparameter, in whole processes timed from outside; the
time a run is what more runs add. Run: python -m tests.benchmarks.overhead
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[1]


def measure_bhnbench(n_runs: int) -> float:
    """Seconds of a whole `bhnbench sweep`: Ray's start, ledger and MLflow included."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sweep.yaml"
        path.write_text(
            "name: noop\ntasks: [guess]\nmethods: [constant]\n"
            f"search: {{sampler: random, trials: {n_runs - 5}}}\nevaluate: {{seeds: 5}}\n"
        )
        command = [sys.executable, "-m", "bhnbench.cli", "sweep", str(path)]
        return _time([*command, "--home", str(Path(folder) / "home")])


def _time(command: list[str]) -> float:
    environment = os.environ | {
        "PYTHONPATH": str(ROOT / "doubles"), "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "disabled",
    }  # fmt: skip
    start = time.perf_counter()
    subprocess.run(command, env=environment, capture_output=True, check=True)
    return time.perf_counter() - start


def per_run(measure: Callable[[int], float], few: int, many: int) -> float:
    """Seconds a run: what more runs add, so that start and end cancel alike for everybody."""
    return (measure(many) - measure(few)) / (many - few)


def measure_tune(n_runs: int, *, reuse_actors: bool) -> float:
    """Seconds of a whole Ray Tune run: its defaults, or reused actors and no loggers."""
    code = f"""
import os, tempfile
if {reuse_actors}:
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
import ray
from ray import tune
ray.init("local", include_dashboard=False, log_to_driver=False)
def noop(config):
    import torch
    tune.report({{"closeness": -abs(config["x"] - 0.3)}})
with tempfile.TemporaryDirectory() as folder:
    tune.Tuner(noop, param_space={{"x": tune.uniform(0, 1)}},
        tune_config=tune.TuneConfig(metric="closeness", mode="max", num_samples={n_runs},
                                    reuse_actors={reuse_actors}),
        run_config=tune.RunConfig(storage_path=folder, verbose=0)).fit()
"""
    return _time([sys.executable, "-c", code])


def measure_start_up(repeats: int = 15) -> tuple[float, float]:
    """Median seconds of `bhnbench --help` and of `python -c "import click"`, taken in turn."""
    commands = ([str(Path(sys.executable).parent / "bhnbench"), "--help"],
                [sys.executable, "-c", "import click"])  # fmt: skip
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for command, found in zip(commands, times, strict=True):
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            found.append(time.perf_counter() - start)
    ours, click = (sorted(found)[repeats // 2] for found in times)
    return ours, click


def main() -> None:
    """Print the ratios."""
    ours, click = measure_start_up()
    print(f"bhnbench --help {1000 * ours:.0f} ms, import click {1000 * click:.0f} ms: "
          f"ratio {ours / click:.2f} (at most 2 wanted)")  # fmt: skip
    engine = per_run(measure_bhnbench, 20, 120)
    print(f"bhnbench: {1000 * engine:.1f} ms a run, ledger and MLflow included")
    for reuse_actors, few, many in ((True, 20, 120), (False, 4, 20)):
        tune = per_run(partial(measure_tune, reuse_actors=reuse_actors), few, many)
        name = "reused actors, no loggers" if reuse_actors else "its defaults"
        print(f"Ray Tune, {name}: {1000 * tune:.1f} ms a trial: ratio {tune / engine:.1f}")


if __name__ == "__main__":
    main()
