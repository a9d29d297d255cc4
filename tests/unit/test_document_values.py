"""Every value that a sweep file lets a search try is checked as a fixed one is."""

from __future__ import annotations

from pathlib import Path

import pytest

from bhnbench.errors import InvalidSweepError
from bhnbench.space import Choice
from bhnbench.sweep.document import Sweep, read_sweep


def read(tmp_path: Path, method: str, parameters: str, *overrides: str) -> Sweep:
    path = tmp_path / "sweep.yaml"
    path.write_text(
        f"name: demo\ntasks: [guess]\nmethods:\n  - name: {method}\n    parameters:\n"
        f"      {parameters}\nsearch: {{trials: 4}}\n"
    )
    return read_sweep(path, overrides)


def mistakes(tmp_path: Path, method: str, parameters: str, *overrides: str) -> list[str]:
    with pytest.raises(InvalidSweepError) as caught:
        read(tmp_path, method, parameters, *overrides)
    return [line.replace(f"{tmp_path}/", "") for line in caught.value.mistakes]


@pytest.mark.parametrize(
    ("method", "parameters", "lines"),
    [
        ("distilled", "teacher: {values: [mc_dropout, maximum_likelihoodd]}",
         ["teacher: no method 'maximum_likelihoodd' is installed; did you mean "
          "'maximum_likelihood'?"]),
        ("distilled", "teacher: {values: [mcdropout, maximum_likelihoodd]}",
         ["teacher: no method 'mcdropout' is installed; did you mean 'mc_dropout'?",
          "teacher: no method 'maximum_likelihoodd' is installed; did you mean "
          "'maximum_likelihood'?"]),
        ("distilled", "teacher: {value: mcdropout}",
         ["teacher: no method 'mcdropout' is installed; did you mean 'mc_dropout'?"]),
        ("distilled", "teacher_settings: {values: ['rate: 0.2', 'rate: 2']}",
         ["teacher_settings: rate must be in [0, 0.99], but got 2.0"]),
        ("mc_dropout", "drop: {values: [units, mapps]}",
         ["drop: must be one of units, maps, but got 'mapps'"]),
        ("mc_dropout", "learn_rates: {values: [true, 1]}",
         ["learn_rates: must be true or false, but got 1"]),
        ("mc_dropout", "layer_rates: {values: ['0.1', '2']}",
         ["layer_rates: must be numbers in [0, 0.99] with commas between, such as "
          "\"0.1, 0.5\", but got '2'"]),
        ("mc_dropout", "rate: {values: [0.1, 2, '0.3']}",
         ["rate: must be in [0, 0.99], but got 2", "rate: must be a number, but got '0.3'"]),
        ("mc_dropout", "rate: {min: -1, max: 2}",
         ["rate: must be in [0, 0.99], but got -1", "rate: must be in [0, 0.99], but got 2"]),
        ("mc_dropout", "rate: {value: 2}", ["rate: must be in [0, 0.99], but got 2"]),
        ("distilled", "teacher_settings: {min: 0, max: 1}",
         ["teacher_settings: is text; use `values`, a list, but no range"]),
    ],
)  # fmt: skip
def test_each_value_is_checked(
    tmp_path: Path, method: str, parameters: str, lines: list[str]
) -> None:
    expected = [f"sweep.yaml:6: methods[0].parameters.{line}" for line in lines]
    assert mistakes(tmp_path, method, parameters) == expected


def test_a_value_must_go_with_what_is_fixed(tmp_path: Path) -> None:
    parameters = (
        'teacher: {values: [mc_dropout, deep_ensemble]}\n    teacher_settings: "rate: 0.3"'
    )
    (line,) = mistakes(tmp_path, "distilled", parameters)
    assert line.startswith(
        "sweep.yaml:6: methods[0].parameters.teacher: with 'deep_ensemble', teacher_settings: "
        "deep_ensemble has no field 'rate'; known: "
    )


def test_it_need_not_go_with_a_default_that_is_never_tried(tmp_path: Path) -> None:
    """The teacher is mc_dropout by default, which has no members."""
    parameters = "teacher: {values: [deep_ensemble]}\n    teacher_settings: 'n_members: 3'"
    (study,) = read(tmp_path, "distilled", parameters).studies
    assert study.space["teacher"] == Choice("deep_ensemble")
    assert study.method.settings["teacher"] == "deep_ensemble"


def test_a_value_on_the_command_line_is_checked(tmp_path: Path) -> None:
    option = "methods.0.parameters.teacher.values=[mcdropout]"
    (line,) = mistakes(tmp_path, "distilled", "teacher: {values: [mc_dropout]}", option)
    assert line.endswith("no method 'mcdropout' is installed; did you mean 'mc_dropout'?")
