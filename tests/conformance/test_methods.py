"""Every installed method keeps the laws, in each of its forms."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from bhnbench.plugins import installed
from bhnbench.testing import MethodSuite

DOUBLES = "bhnbench-doubles"  # made to break laws; test_broken_methods.py shows that they do
_CONCRETE = {"settings": {"input_rate": 0.1, "learn_rates": True, "weight_decay": 0.1}}
_RATES = {"values": {"layer_rates": (None, "0.1")}}
_WITH_LAPLACE = {
    "pytestmark": pytest.mark.skipif(
        find_spec("laplace") is None, reason="laplace-torch is not installed; `make setup` does it"
    )
}
VARIANTS = {
    "bayes_by_backprop": [
        {"without_effect": ("narrow_sd", "wide_share")},
        {
            "settings": {"estimator": "weights", "empirical_bayes": True},
            "without_effect": ("narrow_sd", "wide_share"),
        },
        {
            "settings": {"prior": "scale_mixture"},
            "without_effect": ("estimator",),
        },
    ],
    "bayes_by_hypernet": [
        {"without_effect": ("discriminator_speed",)},
        {"settings": {"kl_estimator": "discriminator", "target": "weights"}},
    ],
    "multiplicative_normalizing_flow": [{}, {"settings": {"max_sd": 0.1}}],
    "variational_dropout": [{}, {"settings": {"granularity": "weight"}}],
    "sparse_variational_dropout": [
        {},
        {"settings": {"prediction": "sample"}},
    ],
    "dropout": [_RATES, _CONCRETE],
    "mc_dropout": [_RATES, _CONCRETE],
    "laplace": [
        _WITH_LAPLACE,
        {"settings": {"subset": "all", "hessian": "full"}, **_WITH_LAPLACE},
    ],
    "distilled": [
        {
            "values": {
                "teacher": ("mc_dropout", "maximum_likelihood"),
                "teacher_settings": ("", "rate: 0.1"),
            }
        },
        {"settings": {"teacher": "deep_ensemble", "teacher_settings": "n_members: 2"}},
    ],
    "deep_ensemble": [{}, {"settings": {"adversarial_step": 0.01}}],
    "sgld": [
        {"settings": {"n_kept": 4}},  # the suite's fits have few steps
        {"settings": {"n_kept": 4, "preconditioned": False, "learning_rate": 0.05}},
    ],
    "cyclical_sghmc": [
        {"settings": {"n_kept_per_cycle": 1}},
        {"settings": {"n_kept_per_cycle": 1, "preconditioned": False, "learning_rate": 0.02}},
    ],
    "bayesian_hypernet": [
        {},
        {"settings": {"flow": "iaf"}},
        {"settings": {"flow": "affine"}, "without_effect": ("n_coupling_layers", "width")},
        {"settings": {"flow": "spline"}},
        {"settings": {"target": "weights"}},
    ],
}

for name, plugin in installed("method").items():
    variants = VARIANTS.get(name, [{}]) if plugin.package != DOUBLES else []
    for number, variant in enumerate(variants, start=1):
        suite = f"Test_{name}_{number}"
        globals()[suite] = type(suite, (MethodSuite,), {"method": name, **variant})
