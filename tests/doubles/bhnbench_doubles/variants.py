"""Small settings of every task, in each of its protocols: a run takes next to no time."""

from __future__ import annotations

from typing import Any

ROUNDS = {"n_rounds": 3, "n_acquired": 5, "n_samples": 4, "n_hidden": 10}
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "toy_regression": [
        {"n_train": 64, "n_samples": 4},
        {"curve": "cubic", "noise_sd": 9.0, "n_samples": 4, "noise": "heteroscedastic"},
        {"curve": "sinusoids", "n_train": 64, "n_samples": 4},
        {"curve": "gap", "n_samples": 4},
    ],
    "identity": [{"n_samples": 50}],
    "uci_regression": [
        {"n_splits": 3, "splits_together": 1, "n_samples": 4},
        {"n_splits": 2, "n_samples": 4, "noise": "homoscedastic"},
    ],
    "digit_classification": [
        {"n_train": 100, "n_samples": 4},
        {"n_train": 100, "n_samples": 4, "network": "lenet_300_100"},
    ],
    "active_learning": [
        {**ROUNDS, "acquisition": "bald", "n_candidates": 50},
        {**ROUNDS, "acquisition": "max_entropy", "restart": "fresh", "n_candidates": None},
        {**ROUNDS, "acquisition": "variation_ratio", "n_candidates": 30},
        {**ROUNDS, "acquisition": "mean_sd", "restart": "fresh", "n_candidates": 30},
        {**ROUNDS, "acquisition": "random", "n_candidates": 30, "restart": "pretrained"},
        {**ROUNDS, "acquisition": "batch_bald", "n_candidates": 30, "restart": "deterministic"},
    ],
    "compression": [{"n_train": 100, "epochs": 1, "n_samples": 4, "network": "mlp"}],
    "random_labels": [
        {"n_train": 100, "n_samples": 4, "network": "mlp"},
        {"n_train": 100, "n_samples": 4, "network": "mlp", "early_stopping": True},
    ],
    "anomaly_detection": [
        {"n_train": 100, "n_samples": 4},
        {"n_samples": 4, "outliers": "gaussian", "score": "entropy"},
    ],
    "rotated_digit": [
        {"n_train": 100, "n_samples": 4, "angle_step": 30},
        {"n_samples": 2, "n_images": 20, "digit": 7, "max_angle": 90},
    ],
    "distribution_shift": [{"n_samples": 4, "n_images": 50}],
    "adversary": [
        {"n_samples": 4, "n_images": 50},
        {"n_samples": 4, "n_images": 50, "attack": "pgd", "n_steps": 2, "step_sizes": "0.1, 0.2"},
        {"n_train": 100, "epochs": 2, "n_samples": 4, "attack": "transfer", "clip": True},
    ],
    "misclassification": [{"n_train": 100, "n_samples": 4}],
    "incremental": [
        {"n_train": 100, "n_samples": 4, "n_parts": 3},
        {"n_samples": 2, "n_parts": 2, "parts": "classes", "carry": "data"},
    ],
}
