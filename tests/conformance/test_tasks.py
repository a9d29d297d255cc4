"""Every installed task keeps the laws, in each of its protocols."""

from __future__ import annotations

from bhnbench_doubles.variants import VARIANTS

from bhnbench.plugins import installed
from bhnbench.testing import TaskSuite

DOUBLES = "bhnbench-doubles"  # they score no examples; test_broken_tasks.py has tasks that do

for name, plugin in installed("task").items():
    variants = VARIANTS.get(name, [{}]) if plugin.package != DOUBLES else []
    for number, settings in enumerate(variants, start=1):
        suite = f"Test_{name}_{number}"
        globals()[suite] = type(suite, (TaskSuite,), {"task": name, "settings": settings})
