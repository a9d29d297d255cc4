"""Speed of the methods, as ratios in one run; no number means anything without its neighbours.

Run: python -m tests.benchmarks.methods [--device cuda] [--threads 2] [SECTION ...]

steps      a training step of every method over that of maximum_likelihood, and the least that
           its multiply-adds and bytes allow
peers      the same Bayesian layers in bayesian-torch and blitz, with the same optimiser
ensembles  members trained together over one network
samples    posterior samples over deterministic passes, and the peak of memory
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any

import torch

from bhnbench.contract import Method, Problem
from bhnbench.memory import PeakMemory
from bhnbench.plugins import installed, load_method
from tests.benchmarks._cases import (
    BATCH_SIZE,
    LARGE,
    fit,
    in_turn,
    make_problem,
    seconds_per_step,
    show,
)
from tests.benchmarks._counting import Counting, Machine, synchronise
from tests.benchmarks._peers import show_peers

REPEATS = 5
SETTINGS: dict[str, dict[str, Any]] = {"bayesian_hypernet": {"n_coupling_layers": 8}}
STEP_TARGETS = {
    "dropout": 1.15,
    "mc_dropout": 1.15,
    "bayes_by_backprop": 2.5,
    "sparse_variational_dropout": 2.5,
    "bayesian_hypernet": 3.0,
    "deep_ensemble": 5.2,
}
WITHOUT_STEPS = ("laplace", "distilled")  # a step of theirs is one of another method
SAMPLED = ("mc_dropout", "bayesian_hypernet", "bayes_by_hypernet", "bayes_by_backprop")
SAMPLE_TARGETS = {"mc_dropout": 1.3, "bayesian_hypernet": 1.3}
N_SAMPLES, N_IMAGES = 100, 10_000


def methods_for(problem: Problem) -> dict[str, Method]:
    """Every registered method that can do the problem; says why the others cannot."""
    found: dict[str, Method] = {}
    names = [name for name, plugin in installed("method").items() if plugin.package == "bhnbench"]
    for name in sorted(names, key=lambda name: (name != "maximum_likelihood", name)):
        method = load_method(name)(**SETTINGS.get(name, {}))
        reason = method.supports(problem)
        if reason is None:
            found[name] = method
        else:
            print(f"{name} is left out: {reason}")
    return found


def target(name: str, targets: dict[str, float]) -> str:
    """Such as "<= 2.5"; empty where there is none."""
    return f"<= {targets[name]}" if name in targets else ""


# --- steps ------------------------------------------------------------------------------------


def show_steps(device: str) -> None:
    """Time of a training step, and what bounds it from below."""
    problem = make_problem(LARGE, BATCH_SIZE, device=device)
    methods = {n: m for n, m in methods_for(problem).items() if n not in WITHOUT_STEPS}
    measures = {name: partial(seconds_per_step, m, problem) for name, m in methods.items()}
    seconds = in_turn(measures, REPEATS)
    machine = Machine.measure(device, BATCH_SIZE, *LARGE[:2])
    counts = {name: count_step(method, machine, device) for name, method in methods.items()}
    one, least = seconds["maximum_likelihood"], counts["maximum_likelihood"]
    rows = [
        [
            name,
            f"{1000 * seconds[name]:.2f}",
            f"{seconds[name] / one:.2f}",
            target(name, STEP_TARGETS),
            f"{count.multiply_adds / 1e6:.0f}",
            f"{count.multiply_adds / least.multiply_adds:.2f}",
            f"{count.n_bytes / 1e6:.0f}",
            f"{count.n_bytes / least.n_bytes:.2f}",
            f"{1000 * count.floor_seconds:.2f}",
        ]
        for name, count in counts.items()
    ]
    show(
        f"A training step, {'-'.join(map(str, LARGE))}, batch {BATCH_SIZE}",
        [
            "method",
            "ms",
            "ratio",
            "target",
            "M mult-adds",
            "ratio",
            "MB moved",
            "ratio",
            "floor ms",
        ],
        rows,
    )
    print(
        "floor: every operation at the rate of this device's best product "
        f"({machine.multiply_adds_per_second / 1e9:.0f} G multiply-adds/s) or best sum "
        f"({machine.bytes_per_second / 1e9:.1f} GB/s), whichever is slower"
    )


def count_step(method: Method, machine: Machine, device: str) -> Counting:
    """What one more step of an epoch adds to a fit."""
    counts = []
    for n_steps in (3, 2):
        problem = make_problem(LARGE, BATCH_SIZE, device=device, epochs=1, n_steps=n_steps)
        with Counting(machine) as counting:
            fit(method, problem)
        counts.append(counting)
    more, less = counts
    more.multiply_adds -= less.multiply_adds
    more.n_bytes -= less.n_bytes
    more.floor_seconds -= less.floor_seconds
    return more


# --- ensembles --------------------------------------------------------------------------------


def show_ensembles(device: str) -> None:
    """What training together gains: M members one after the other would be M times one."""
    ensemble, one = load_method("deep_ensemble"), load_method("maximum_likelihood")()
    rows = []
    for sizes, n_members, limit in (((1, 50, 2), 10, "<= 3"), ((64, 100, 100, 10), 5, "")):
        problem = make_problem(sizes, 32, device=device, n_steps=50)
        cases = {"one": one, "all": ensemble(n_members=n_members)}
        measures = {name: partial(seconds_per_step, m, problem) for name, m in cases.items()}
        seconds = in_turn(measures, 4 * REPEATS)
        times = [f"{1000 * seconds[name]:.3f}" for name in cases]
        ratio = f"{seconds['all'] / seconds['one']:.2f}"
        rows.append(["-".join(map(str, sizes)), n_members, *times, ratio, limit])
    show(
        "An ensemble over one network, batch 32",
        ["network", "members", "one, ms a step", "all, ms a step", "ratio", "target"],
        rows,
    )


# --- samples ----------------------------------------------------------------------------------


def show_samples(device: str, n_threads: int) -> None:
    """Each method in a process of its own, since the peak of memory is a process's."""
    rows = []
    for name in SAMPLED:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            passes, samples, peaks = pool.submit(sampling_cost, name, device, n_threads).result()
        ratio = f"{samples / passes:.2f}"
        limit = target(name, SAMPLE_TARGETS)
        memory = [f"{peak:.0f}" if peak else "?" for peak in peaks]
        rows.append([name, f"{passes:.2f}", f"{samples:.2f}", ratio, limit, *memory])
    show(
        f"{N_SAMPLES} posterior samples on {N_IMAGES} images over as many deterministic passes",
        ["method", "passes, s", "samples, s", "ratio", "target", "passes, MB", "samples, MB"],
        rows,
    )


def sampling_cost(
    name: str, device: str, n_threads: int
) -> tuple[float, float, list[float | None]]:
    """Seconds of the deterministic passes and of the samples, and both peaks of memory."""
    torch.set_num_threads(n_threads)
    problem = make_problem(LARGE, BATCH_SIZE, device=device, epochs=1)
    predictive = fit(load_method(name)(**SETTINGS.get(name, {})), problem)
    images = torch.rand(N_IMAGES, LARGE[0], device=device)
    one = fit(load_method("maximum_likelihood")(), problem)
    seconds, peaks = [], []

    def passes() -> None:
        for _ in range(N_SAMPLES):
            one.sample(images, 1, rng=torch.Generator())

    def samples() -> None:
        predictive.sample(images, N_SAMPLES, rng=torch.Generator().manual_seed(0))

    with torch.no_grad():
        for work in (passes, samples):
            memory = PeakMemory(device)
            synchronise(device)
            start = time.perf_counter()
            work()
            synchronise(device)
            seconds.append(time.perf_counter() - start)
            peaks.append(memory.peak_mb())
    return seconds[0], seconds[1], peaks


def main() -> None:
    """Print the tables asked for, all without arguments."""
    sections = {
        "steps": show_steps,
        "peers": show_peers,
        "ensembles": show_ensembles,
        "samples": lambda device: show_samples(device, given.threads),
    }
    parser = argparse.ArgumentParser(description="Speed of the methods, as ratios in one run.")
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(sections))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print(f"{given.device}, {given.threads} threads, torch {torch.__version__}")
    for name in given.sections or sections:
        sections[name](given.device)


if __name__ == "__main__":
    main()
