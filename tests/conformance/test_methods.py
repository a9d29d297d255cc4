"""Every installed method keeps the laws, in each of its forms."""

from __future__ import annotations

from bhnbench.plugins import installed
from bhnbench.testing import MethodSuite

DOUBLES = "bhnbench-doubles"  # made to break laws; test_broken_methods.py shows that they do
VARIANTS = {
    "bayesian_hypernet": [
        {},
        {"settings": {"flow": "iaf"}},
        {"settings": {"flow": "affine"}, "without_effect": ("n_coupling_layers", "width")},
    ],
}

for name, plugin in installed("method").items():
    variants = VARIANTS.get(name, [{}]) if plugin.package != DOUBLES else []
    for number, variant in enumerate(variants, start=1):
        suite = f"Test_{name}_{number}"
        globals()[suite] = type(suite, (MethodSuite,), {"method": name, **variant})
