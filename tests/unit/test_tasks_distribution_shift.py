"""Distribution shift, with predictives that know what is clean."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from bhnbench_doubles.fits import Guess, Oracle, run_task
from bhnbench_doubles.images import Familiar, Recorder, all_knowing

from bhnbench.errors import DataError
from bhnbench.seeds import make_rng
from bhnbench_tasks import image_task
from bhnbench_tasks.corruptions import CORRUPTIONS
from bhnbench_tasks.datasets import load_dataset
from bhnbench_tasks.distribution_shift import DistributionShift
from bhnbench_tasks.figures.shift import draw_corruptions, draw_shift
from bhnbench_tasks.plain_network import train_plain_network

SMALL = DistributionShift(n_samples=2)
TESTED = ["blur", "noise", "occlusion", "translation"]
SEARCHED = ["contrast", "rotation", "salt_and_pepper", "shear"]


@pytest.fixture
def oracle() -> Oracle:
    return all_knowing()


def test_doubt_is_scored_where_there_is_noise():
    outcome = run_task(replace(SMALL, corruptions="noise"), Familiar(), holdout="test")
    zeros = (load_dataset("digits").holdout("test").targets == 0).float().mean().item()
    expected = {
        "nll": math.log(10),
        "ece": 100 * abs(zeros - 0.1),
        "accuracy": 100 * zeros,  # of equals the first class is taken
        "clean_nll": 0,
        "clean_accuracy": 100,
    }
    assert outcome.scores == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert outcome.tables["noise"]["nll"] == pytest.approx([0] + 5 * [math.log(10)], abs=1e-5)


def test_overconfidence_costs(oracle):
    """The nearest known image with all confidence: often right, but not as often as it says."""
    outcome = run_task(SMALL, oracle, holdout="test")
    mean = outcome.tables["mean"]
    assert mean["accuracy"][0] == 100
    assert (np.diff(mean["accuracy"]) < 0).all()
    assert mean["ece"] == pytest.approx(100 - mean["accuracy"], abs=1e-4)
    assert outcome.scores["nll"] > math.log(10)


def test_a_constant_prediction_does_not_mind():
    outcome = run_task(SMALL, Guess(), holdout="test")
    assert outcome.scores["nll"] == pytest.approx(math.log(10), rel=1e-5)
    assert outcome.scores["clean_nll"] == pytest.approx(math.log(10), rel=1e-5)
    assert outcome.scores["accuracy"] == pytest.approx(outcome.scores["clean_accuracy"])


def test_scores_are_means_over_corruptions_and_severities(oracle):
    outcome = run_task(SMALL, oracle, holdout="test")
    assert list(outcome.tables) == ["mean", *TESTED]
    for name in ("nll", "accuracy", "ece"):
        curves = np.stack([outcome.tables[corruption][name] for corruption in TESTED])
        assert outcome.tables["mean"][name] == pytest.approx(curves.mean(0))
        assert outcome.scores[name] == pytest.approx(curves[:, 1:].mean())
    assert outcome.tables["mean"]["severity"].tolist() == [0, 1, 2, 3, 4, 5]


def test_a_search_meets_other_corruptions_than_an_evaluation():
    assert list(run_task(SMALL, Guess(), holdout="validation").tables) == ["mean", *SEARCHED]
    assert list(run_task(SMALL, Guess(), holdout="test").tables) == ["mean", *TESTED]
    assert set(TESTED) | set(SEARCHED) == set(CORRUPTIONS)


def test_all_methods_meet_the_same_images():
    one, other, another_seed, alone = Recorder(), Recorder(), Recorder(), Recorder()
    run_task(SMALL, one, holdout="test")
    run_task(replace(SMALL, n_samples=5), other, holdout="test")
    run_task(SMALL, another_seed, holdout="test", seed=2)
    run_task(replace(SMALL, corruptions="occlusion, noise"), alone, holdout="test")
    assert len(one.batches) == 1 + 4 * 5
    for first, second in zip(one.batches, other.batches, strict=True):
        assert torch.equal(first, second)
    noise = slice(6, 11)
    assert not torch.equal(one.batches[6], another_seed.batches[6])
    for first, second in zip(one.batches[noise], alone.batches[6:], strict=True):
        assert torch.equal(first, second)


def test_posterior_samples_are_the_same_for_all_images():
    tables = run_task(SMALL, Recorder(), holdout="test").tables
    values = np.concatenate([table["nll"] for table in tables.values()])
    assert values == pytest.approx(values[0])


def test_a_trained_network_loses_accuracy_and_calibration():
    """As Ovadia et al. (2019) find for all methods."""
    task = DistributionShift(n_samples=1, epochs=10)
    network = train_plain_network(task.problem(load_dataset("digits")), make_rng(seed=1))

    class Network:
        def sample(self, inputs, n_samples, *, rng):
            return network(inputs).expand(n_samples, -1, -1)

    scores = run_task(task, Network(), holdout="test").scores
    assert scores["clean_accuracy"] > 90
    assert scores["accuracy"] < scores["clean_accuracy"] - 10
    assert scores["nll"] > 2 * scores["clean_nll"]


def test_n_images_takes_the_first():
    recorder = Recorder()
    run_task(replace(SMALL, n_images=7), recorder)
    inputs = load_dataset("digits").validation.inputs
    assert torch.equal(recorder.batches[0], inputs[:7])
    assert {len(batch) for batch in recorder.batches} == {7}


def test_a_search_does_not_touch_test_rows(monkeypatch):
    def poisoned():
        raise DataError("the test split was read")

    dataset = replace(load_dataset("digits"), read_test=poisoned)
    monkeypatch.setattr(image_task, "load_dataset", lambda name: dataset)
    run_task(SMALL, Guess(), holdout="validation")
    with pytest.raises(DataError, match="was read"):
        run_task(SMALL, Guess(), holdout="test")


def test_shared_data_are_not_modified():
    validation = load_dataset("digits").validation
    before = validation.inputs.clone()
    run_task(SMALL, Guess())
    assert torch.equal(validation.inputs, before)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"corruptions": "blur, fog"},
            "corruptions must be different ones of blur.*got blur, fog",
        ),
        ({"corruptions": " , "}, "separated by commas, but got none"),
        ({"search_corruptions": "shear, shear"}, "search_corruptions must be different ones"),
        ({"corruptions": "blur, shear"}, "must share none, but both have shear"),
    ],
)
def test_corruptions_that_do_not_go_together_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        DistributionShift(**settings)


def test_inputs_that_are_no_pixels_are_refused(tmp_path):
    """Corruptions would clip them: a 255 is not a 1."""
    path, inputs = str(tmp_path / "mine.npz"), np.random.default_rng(1).random((50, 4, 4))
    np.savez(path, inputs=1.0000001 * inputs / inputs.max(), targets=np.arange(50) % 2)
    assert DistributionShift(dataset=path).dataset == path  # but for rounding
    for scale, shown in ((255 / inputs.max(), r"\[.*, 255\]"), (-1.0, r"\[-.*\]")):
        np.savez(path, inputs=scale * inputs, targets=np.arange(50) % 2)
        with pytest.raises(ValueError, match=rf"dataset must hold pixels in .* in {shown}; scale"):
            DistributionShift(dataset=path)


def test_figures_show_the_tables(oracle):
    outcomes = {"a": [run_task(SMALL, oracle, holdout="test")], "b": []}
    shift, corruptions = draw_shift(outcomes), draw_corruptions(outcomes)
    assert [axes.get_ylabel() for axes in shift.axes] == [
        "nll (nats)",
        "accuracy (%)",
        "calibration error (%)",
    ]
    assert [axes.get_title() for axes in corruptions.axes] == TESTED
    expected = outcomes["a"][0].tables["noise"]["nll"]
    assert corruptions.axes[1].lines[0].get_ydata() == pytest.approx(expected)
    for outcome in (outcomes, {"a": []}):
        draw_corruptions(outcome).savefig(io.BytesIO())
