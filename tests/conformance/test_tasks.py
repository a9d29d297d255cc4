"""Every installed task keeps the laws, in each of its protocols."""

from __future__ import annotations

from bhnbench.plugins import installed
from bhnbench.testing import TaskSuite

DOUBLES = "bhnbench-doubles"  # they score no examples; test_broken_tasks.py has tasks that do
ROUNDS = {"n_rounds": 3, "n_acquired": 5, "n_samples": 4, "n_hidden": 10}
VARIANTS = {  # they take no time
    "toy_regression": [{"n_train": 64, "n_samples": 4}],
    "digit_classification": [{"n_train": 100, "n_samples": 4}],
    "active_learning": [
        {**ROUNDS, "acquisition": "bald", "n_candidates": 50},
        {**ROUNDS, "acquisition": "max_entropy", "restart": "fresh", "n_candidates": None},
        {**ROUNDS, "acquisition": "variation_ratio", "n_candidates": 30},
        {**ROUNDS, "acquisition": "mean_sd", "restart": "fresh", "n_candidates": 30},
        {**ROUNDS, "acquisition": "random", "n_candidates": 30},
    ],
}

for name, plugin in installed("task").items():
    variants = VARIANTS.get(name, [{}]) if plugin.package != DOUBLES else []
    for number, settings in enumerate(variants, start=1):
        suite = f"Test_{name}_{number}"
        globals()[suite] = type(suite, (TaskSuite,), {"task": name, "settings": settings})
