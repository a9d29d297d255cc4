"""Rotated digits, with predictives that know them upright."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from bhnbench_doubles.fits import Fit, Guess, run_task
from bhnbench_doubles.images import Familiar, Recorder, all_knowing

from bhnbench.contract import Split
from bhnbench.errors import DataError
from bhnbench_tasks import image_task, rotated_digit
from bhnbench_tasks.corruptions import as_images, rotate
from bhnbench_tasks.datasets import load_dataset
from bhnbench_tasks.figures.rotation import draw_rotated_digit, draw_rotation
from bhnbench_tasks.rotated_digit import RotatedDigit, example, of_class, summarise
from bhnbench_tasks.scores import uncertainty_scores

SMALL = RotatedDigit(n_samples=2)


@pytest.mark.parametrize("holdout", ["validation", "test"])
def test_doubt_about_what_is_turned_is_what_is_rewarded(holdout):
    """Entropy is 0 at 0 degrees and log 10 at the 18 other angles."""
    outcome = run_task(SMALL, Familiar(), holdout=holdout)
    area = math.log(10) * (1 - 0.5 / 18)  # the first trapezoid is half of the others
    zeros = (load_dataset("digits").holdout(holdout).targets == 0).float().mean().item()
    expected = {
        "area_under_entropy_curve": area,
        "entropy_rise": area,
        "nll": area,
        "accuracy": 100 * (zeros + (1 - zeros) * 0.5 / 18),  # of equals the first class is taken
        "upright_accuracy": 100,
    }
    assert outcome.scores == pytest.approx(expected, rel=1e-5)
    curve = outcome.tables["rotation"]
    assert curve["angle"].tolist() == list(range(0, 181, 10))
    assert curve["bald"] == pytest.approx(0, abs=1e-6)


def test_who_knows_nothing_has_all_the_area_but_no_rise():
    scores = run_task(SMALL, Guess()).scores
    assert scores["area_under_entropy_curve"] == pytest.approx(math.log(10))
    assert scores["entropy_rise"] == pytest.approx(0, abs=1e-6)
    assert scores["nll"] == pytest.approx(math.log(10), rel=1e-5)


def test_the_area_is_the_mean_by_the_trapezoid_rule():
    columns = ("entropy", "nll", "accuracy")
    curve = {"angle": np.array([0.0, 10, 40])} | {c: np.array([1.0, 3, 5]) for c in columns}
    mean = (2 * 10 + 4 * 30) / 40
    assert summarise(curve) == {
        "area_under_entropy_curve": mean,
        "entropy_rise": mean - 1,
        "nll": mean,
        "accuracy": mean,
        "upright_accuracy": 1,
    }


def test_images_turn_by_the_angles():
    recorder = Recorder()
    run_task(replace(SMALL, max_angle=90, angle_step=45, n_images=7), recorder)
    inputs = load_dataset("digits").validation.inputs[:7]
    for batch, degrees in zip(recorder.batches[:3], (0, 45, 90), strict=True):
        turned = rotate(as_images(inputs, (8, 8)), degrees).flatten(1)
        assert torch.allclose(batch, turned, atol=1e-5)
    assert torch.equal(recorder.batches[0], inputs)


def test_a_full_turn_ends_where_it_began():
    outcome = run_task(replace(SMALL, max_angle=360, angle_step=90), Familiar())
    assert outcome.tables["rotation"]["accuracy"][[0, -1]].tolist() == [100, 100]


def test_posterior_samples_are_the_same_at_all_angles():
    tables = run_task(SMALL, Recorder()).tables
    assert len(set(tables["rotation"]["entropy"].tolist())) == 1
    assert len(set(tables["shown_digit"]["mean_4"].tolist())) == 1
    again, other = (run_task(SMALL, Recorder(), seed=seed).tables for seed in (1, 2))
    np.testing.assert_array_equal(again["shown_digit"]["sd_0"], tables["shown_digit"]["sd_0"])
    assert (other["rotation"]["entropy"] != tables["rotation"]["entropy"]).all()


def test_samples_that_are_all_the_same_are_scored_once(monkeypatch):
    scored: list[int] = []

    def spied(outputs):
        scored.append(len(outputs))
        return uncertainty_scores(outputs)

    monkeypatch.setattr(rotated_digit, "uncertainty_scores", spied)
    outcome = run_task(replace(SMALL, n_samples=100), all_knowing())
    assert scored == 19 * [1]
    assert not outcome.tables["shown_digit"]["sd_0"].any()


@pytest.mark.parametrize(("digit", "shown"), [(None, 3), (7, 7)])
def test_the_figure_follows_the_first_image_of_a_class(digit, shown):
    recorder = Recorder()
    tables = run_task(replace(SMALL, digit=digit, n_images=30), recorder, holdout="test").tables
    test = load_dataset("digits").holdout("test")
    expected = test.inputs[test.targets == shown][0]
    assert tables["shown_image"]["intensity"] == pytest.approx(expected.numpy())
    assert tables["shown_image"]["row"].tolist()[:9] == 8 * [0] + [1]
    assert torch.equal(recorder.batches[-19], expected.unsqueeze(0))


def test_without_a_3_the_figure_follows_the_first_image():
    some = Split(torch.rand(4, 64), torch.tensor([7, 1, 8, 2]))
    assert torch.equal(example(some).inputs, some.inputs[:1])


def test_a_class_that_is_not_there_is_refused():
    with pytest.raises(DataError, match=r"digit must be a class of .*, \[1, 7\], but is 3; name"):
        of_class(Split(torch.rand(2, 64), torch.tensor([7, 1])), 3)


def test_a_class_that_the_data_set_has_not_is_no_setting(tmp_path):
    path = str(tmp_path / "mine.npz")
    np.savez(path, inputs=np.random.default_rng(1).random((30, 4, 4)), targets=np.arange(30) % 3)
    with pytest.raises(ValueError, match=r"digit must be one of the 3 classes of .*, but is 3; "):
        RotatedDigit(dataset=path, digit=3)
    assert RotatedDigit(dataset=path, digit=2).digit == 2


def test_a_class_that_the_holdout_has_not_is_missed_before_anything_is_trained(monkeypatch):
    dataset, fit = load_dataset("digits"), Fit(lambda problem: Guess())
    some = Split(dataset.validation.inputs[:1], dataset.validation.targets[:1])
    monkeypatch.setattr(image_task, "load_dataset", lambda n: replace(dataset, validation=some))
    digit = (int(some.targets) + 1) % 10
    with pytest.raises(DataError, match=f"digit must be a class of .* but is {digit}; name one"):
        run_task(replace(SMALL, digit=digit), fit)
    assert not fit.problems


def test_probabilities_of_the_shown_image():
    table = run_task(SMALL, Familiar()).tables["shown_digit"]
    assert table["mean_3"] == pytest.approx([1] + 18 * [0.1])
    assert table["sd_3"] == pytest.approx(0, abs=1e-6)
    assert len(table) == 1 + 2 * 10


def test_one_class_alone_can_be_turned():
    recorder = Recorder()
    run_task(replace(SMALL, digit=7), recorder)
    validation = load_dataset("digits").validation
    assert torch.equal(recorder.batches[0], validation.inputs[validation.targets == 7])


def test_a_search_does_not_touch_test_rows(monkeypatch):
    def poisoned():
        raise DataError("the test split was read")

    dataset = replace(load_dataset("digits"), read_test=poisoned)
    monkeypatch.setattr(image_task, "load_dataset", lambda name: dataset)
    run_task(SMALL, Guess(), holdout="validation")
    with pytest.raises(DataError, match="was read"):
        run_task(SMALL, Guess(), holdout="test")


def test_a_largest_angle_between_two_steps_is_refused():
    with pytest.raises(ValueError, match=r"multiple of angle_step.*max_angle=90, angle_step=20"):
        RotatedDigit(max_angle=90, angle_step=20)


def test_figures_show_the_tables():
    outcomes = {"a": [run_task(SMALL, Familiar())], "b": [run_task(SMALL, Guess())], "c": []}
    entropy = draw_rotation(outcomes).axes[0]
    assert entropy.lines[0].get_ydata()[:2] == pytest.approx([0, math.log(10)], abs=1e-5)
    figure = draw_rotated_digit(outcomes)
    assert [axes.get_title() for axes in figure.axes] == ["a", "b"]
    assert len(figure.axes[0].child_axes) == 7
    assert len(figure.axes[0].lines) == 10
    for outcome in (outcomes, {"a": []}):
        draw_rotated_digit(outcome).savefig(io.BytesIO())
