"""Time per run beyond the work itself: a sweep of runs that do nothing, beside plain Ray Tune.

Both search 40 random configurations of one hyperparameter on the same machine in one process
tree, Ray's start and stop not counted. Run: python tests/benchmarks/overhead.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

N_RUNS = 60
ROOT = Path(__file__).parents[1]


def measure_bhnbench(n_runs: int) -> float:
    """Seconds a run: ledger and MLflow included."""
    os.environ["PYTHONPATH"] = str(ROOT / "doubles")
    sys.path.insert(0, str(ROOT / "doubles"))
    from bhnbench.driver import drive
    from bhnbench.home import Home
    from bhnbench.ledger.ledger import Ledger
    from bhnbench.sweep.document import read_sweep

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sweep.yaml"
        path.write_text(
            "name: noop\ntasks: [guess]\nmethods: [constant]\n"
            f"search: {{sampler: random, trials: {n_runs - 5}}}\nevaluate: {{seeds: 5}}\n"
        )
        home = Home(Path(folder) / "home")
        landed: list[float] = []
        with Ledger(home.ledger, create=True) as ledger:
            end = drive(
                read_sweep(path),
                home,
                ledger,
                on_started=lambda record: None,
                on_landed=lambda study, key: landed.append(time.perf_counter()),
            )
        if end.n_executed != n_runs:
            raise RuntimeError(f"{n_runs} runs were to be executed, but {end.n_executed} were")
    warm = 4  # the first ones wait for workers to start
    return (landed[-1] - landed[warm - 1]) / (len(landed) - warm)


def measure_tune(n_runs: int, *, reuse_actors: bool) -> float:
    """Seconds a trial of Ray Tune: with its defaults, or with reused actors and no loggers."""
    code = f"""
import os, time, tempfile
if {reuse_actors}:
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
import ray
from ray import tune
ray.init(include_dashboard=False, log_to_driver=False)
def noop(config):
    import torch
    tune.report({{"closeness": -abs(config["x"] - 0.3)}})
with tempfile.TemporaryDirectory() as folder:
    tuner = tune.Tuner(noop, param_space={{"x": tune.uniform(0, 1)}},
        tune_config=tune.TuneConfig(metric="closeness", mode="max", num_samples={n_runs},
                                    reuse_actors={reuse_actors}),
        run_config=tune.RunConfig(storage_path=folder, verbose=0))
    start = time.perf_counter()
    tuner.fit()
    print("SECONDS", (time.perf_counter() - start) / {n_runs})
"""
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return float(done.stdout.split("SECONDS ")[1].split()[0])


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
    engine = measure_bhnbench(N_RUNS)
    print(f"bhnbench, {N_RUNS} runs: {1000 * engine:.1f} ms a run")
    for reuse_actors, n_runs in ((True, N_RUNS), (False, N_RUNS // 3)):
        tune = measure_tune(n_runs, reuse_actors=reuse_actors)
        name = "reused actors, no loggers" if reuse_actors else "its defaults"
        print(f"Ray Tune, {name}, {n_runs} trials: {1000 * tune:.1f} ms a trial: "
              f"ratio {tune / engine:.1f}")  # fmt: skip


if __name__ == "__main__":
    main()
