"""The adversary, with predictives whose weak points are known."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from bhnbench_doubles.fits import Guess, run_task
from bhnbench_doubles.images import Familiar, Recorder

from bhnbench.errors import DataError
from bhnbench.seeds import make_rng
from bhnbench_tasks import image_task
from bhnbench_tasks.adversary import PAPERS_STEPS, Adversary, parse_steps, summary
from bhnbench_tasks.datasets import load_dataset
from bhnbench_tasks.figures.adversary import (
    draw_accuracy,
    draw_detection,
    draw_errors,
    draw_scores,
)
from bhnbench_tasks.plain_network import train_plain_network
from bhnbench_tasks.scores import SCORES

SMALL = Adversary(n_samples=2, step_sizes="0.01, 0.1", epochs=1)


@dataclass
class Doubtful(Familiar):
    """Right about the digits as they are, and doubtful of others, as it is told.

    A little of each logit is linear in the image, so that there is something to attack.
    """

    samples_disagree: bool = False
    is_sure_of_errors: bool = False

    def __post_init__(self) -> None:
        super().__init__()
        self.weights = 1e-3 * torch.randn(64, 10, generator=make_rng(w=1))

    def sample(self, inputs, n_samples, *, rng):
        logits = super().sample(inputs.detach(), n_samples, rng=rng)
        is_known = logits.abs().sum((0, 2)) > 0
        if self.samples_disagree:
            votes = torch.nn.functional.one_hot(torch.arange(n_samples) % 10, 10)
            logits = logits + 50.0 * votes.unsqueeze(1) * ~is_known.view(-1, 1)
        if self.is_sure_of_errors:  # right, but unsure, of others whose first pixel is even
            logits = logits + self._opinion(inputs.detach()) * ~is_known.view(-1, 1)
        return logits + inputs @ self.weights

    def _opinion(self, inputs):
        nearest = torch.cdist(inputs, self.inputs).argmin(-1)
        targets, rows = self.targets[nearest], torch.arange(len(inputs))
        is_wrong = rows % 2 == 0
        logits = torch.zeros(len(inputs), 10)
        logits[rows, torch.where(is_wrong, (targets + 1) % 10, targets)] = 2.0
        logits[is_wrong] *= 10
        return logits


class Network:
    """A plain network trained on digits."""

    def __init__(self) -> None:
        problem = Adversary(epochs=10).problem(load_dataset("digits"))
        self.network = train_plain_network(problem, make_rng(seed=1))

    def sample(self, inputs, n_samples, *, rng):
        return self.network(inputs).expand(n_samples, -1, -1)


@pytest.fixture(scope="module")
def network() -> Network:
    return Network()


@pytest.mark.parametrize("holdout", ["validation", "test"])
def test_a_constant_prediction_has_nothing_to_attack_or_to_detect(holdout):
    scores = dict(run_task(SMALL, Guess(), holdout=holdout).scores)
    zeros = (load_dataset("digits").holdout(holdout).targets == 0).double().mean().item()
    assert scores.pop("area_under_accuracy_curve") == pytest.approx(100 * zeros)
    assert scores.pop("clean_accuracy") == pytest.approx(100 * zeros)
    assert len(scores) == 8
    assert list(scores.values()) == pytest.approx([50] * 8)


def test_doubt_of_adversarial_images_detects_them_all():
    outcome = run_task(SMALL, Doubtful(samples_disagree=True))
    table = outcome.tables["step_sizes"]
    assert table["step"].tolist() == [0, 0.01, 0.1]
    for name in SCORES:
        assert table[f"detection_{name}"] == pytest.approx([50, 100, 100])
        assert table[f"mean_{name}"][0] < 1e-2 < table[f"mean_{name}"][1]
        # The curve rises from 50 to 100 over the first tenth of the axis.
        assert outcome.scores[f"detection_{name}"] == pytest.approx(100 - 50 / 2 / 10)
    assert outcome.scores["clean_accuracy"] == 100


def test_samples_that_agree_detect_by_their_mean_alone():
    table = run_task(SMALL, Doubtful()).tables["step_sizes"]
    for name, detected in {
        "entropy": 100,
        "least_confidence": 100,
        "bald": 50,
        "mean_sd": 50,
    }.items():
        assert table[f"detection_{name}"] == pytest.approx([50, detected, detected])


def test_errors_that_are_sure_rank_last():
    """A higher score means an error; here errors have the lower one."""
    outcome = run_task(SMALL, Doubtful(is_sure_of_errors=True))
    table = outcome.tables["step_sizes"]
    assert table["accuracy"][0] == 100
    assert table["accuracy"][1] == pytest.approx(50, abs=1)
    assert table["error_entropy"] == pytest.approx([50, 0, 0])  # without errors it is 50
    assert table["error_least_confidence"] == pytest.approx([50, 0, 0])
    assert outcome.scores["error_entropy"] == pytest.approx(50 / 2 / 10)


def test_a_network_is_fooled_and_pgd_fools_it_more(network):
    task = replace(SMALL, step_sizes="0.05, 0.1, 0.2")
    fgs, pgd, transfer = (
        run_task(replace(task, attack=attack, epochs=10), network).tables["step_sizes"]
        for attack in ("fgs", "pgd", "transfer")
    )
    assert fgs["accuracy"][0] == pgd["accuracy"][0] > 90
    assert (np.diff(fgs["accuracy"]) < 0).all()
    assert (pgd["accuracy"] <= fgs["accuracy"]).all()
    assert pgd["accuracy"].sum() < fgs["accuracy"].sum()
    assert (transfer["accuracy"][1:] > fgs["accuracy"][1:]).all()  # who knows less does less
    assert transfer["accuracy"][-1] < 50


def test_transfer_images_are_the_same_for_all_methods(network):
    seen = []
    for predictive in (Recorder(), Recorder()):
        run_task(replace(SMALL, attack="transfer"), predictive)
        seen.append(predictive.batches)
    assert len(seen[0]) == 3
    for first, second in zip(*seen, strict=True):
        assert torch.equal(first, second)
    assert (seen[0][2] - seen[0][0]).abs().max().item() == pytest.approx(0.1, abs=1e-6)


def test_images_are_scored_with_fresh_samples():
    """Not with those that the attacker drew; and with the same ones at all step sizes."""
    seeds = []

    class Watched(Doubtful):
        def sample(self, inputs, n_samples, *, rng):
            seeds.append((rng.initial_seed(), n_samples))
            return super().sample(inputs, n_samples, rng=rng)

    run_task(replace(SMALL, n_samples=7, n_gradient_samples=3, n_images=20), Watched())
    attacks = [seed for seed, n in seeds if n == 3]
    scorings = [seed for seed, n in seeds if n == 7]
    assert len(attacks) == 1
    assert len(scorings) == 3
    assert len(set(scorings)) == 1
    assert not set(attacks) & set(scorings)


@pytest.mark.parametrize("clip", [True, False])
def test_pixels_may_leave_their_range_unless_clipped(clip, network):
    batches = []

    class Watched(Network):
        def __init__(self) -> None:
            self.network = network.network

        def sample(self, inputs, n_samples, *, rng):
            batches.append(inputs.detach())
            return super().sample(inputs, n_samples, rng=rng)

    run_task(replace(SMALL, clip=clip, n_images=30), Watched())
    low, high = torch.stack(batches[1:]).aminmax()
    assert (low.item(), high.item()) == pytest.approx((0, 1) if clip else (-0.1, 1.1))
    assert {len(batch) for batch in batches} == {30}


def test_a_search_attacks_validation_images_only(monkeypatch):
    def poisoned():
        raise DataError("the test split was read")

    dataset = replace(load_dataset("digits"), read_test=poisoned)
    monkeypatch.setattr(image_task, "load_dataset", lambda name: dataset)
    for attack in ("fgs", "pgd", "transfer"):
        task = replace(SMALL, attack=attack, n_images=5)
        run_task(task, Guess(), holdout="validation")
        with pytest.raises(DataError, match="was read"):
            run_task(task, Guess(), holdout="test")


def test_the_area_is_over_step_sizes_by_the_trapezoid_rule():
    curve = {"step": np.array([0, 0.1, 0.5]), "accuracy": np.array([100.0, 50, 0])}
    assert summary(curve, "area_under_accuracy_curve") == pytest.approx((7.5 + 10) / 0.5)
    assert summary(curve, "clean_accuracy") == 100


def test_the_steps_are_the_papers():
    steps = parse_steps(PAPERS_STEPS)
    assert len(steps) == 20
    assert (steps[0], steps[-1]) == (0.001, 0.5)


@pytest.mark.parametrize("steps", ["", "0.1, x", "0, 0.1", "0.2, 0.1", "0.1, 0.1", "nan", "inf"])
def test_steps_that_do_not_increase_are_refused(steps):
    with pytest.raises(ValueError, match="step_sizes must be increasing positive numbers"):
        Adversary(step_sizes=steps)


def test_only_pixels_can_be_clipped(tmp_path):
    path = str(tmp_path / "mine.npz")
    inputs = 3 * np.random.default_rng(1).random((50, 4))
    np.savez(path, inputs=inputs, targets=np.arange(50) % 2)
    assert not Adversary(dataset=path).clip
    with pytest.raises(ValueError, match=r"dataset must hold pixels in \[0, 1\], but .*mine\.npz"):
        Adversary(dataset=path, clip=True)


def test_figures_show_the_tables(network):
    outcomes = {"a": [run_task(SMALL, network)], "b": [run_task(SMALL, Guess())], "c": []}
    table = outcomes["a"][0].tables["step_sizes"]
    accuracy = draw_accuracy(outcomes).axes[0].lines[0]
    np.testing.assert_allclose(accuracy.get_ydata(), table["accuracy"])
    for draw, column in (
        (draw_scores, "mean_entropy"),
        (draw_detection, "detection_entropy"),
        (draw_errors, "error_entropy"),
    ):
        figure = draw(outcomes)
        assert len(figure.axes) == len(SCORES)
        assert figure.axes[0].get_xscale() == "symlog"
        lines = {line.get_label(): line for line in figure.axes[0].lines}
        np.testing.assert_allclose(lines["a"].get_ydata(), table[column])
        assert ("random" in lines) == (draw is not draw_scores)  # an AUROC has a guesser's
        for drawn in (figure, draw({"a": []})):
            drawn.savefig(io.BytesIO())
