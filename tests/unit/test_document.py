"""Sweep files: what they mean, and each mistake told in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from bhnbench.errors import InvalidSweepError
from bhnbench.space import Choice, Float
from bhnbench.sweep.document import Sweep, read_sweep

GOOD = """\
name: demo
tasks:
  - guess
methods:
  - constant
search: {sampler: tpe, trials: 4}
"""


def read(tmp_path: Path, text: str, *overrides: str) -> Sweep:
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    return read_sweep(path, overrides)


def mistakes(tmp_path: Path, text: str, *overrides: str) -> list[str]:
    with pytest.raises(InvalidSweepError) as caught:
        read(tmp_path, text, *overrides)
    return [line.replace(f"{tmp_path}/", "") for line in caught.value.mistakes]


def test_a_study_for_every_task_and_method(tmp_path: Path) -> None:
    sweep = read(tmp_path, GOOD)
    (study,) = sweep.studies
    assert study.labels == ("guess", "constant")
    assert (study.metric, study.direction) == ("closeness", "maximize")
    assert study.space == {"x": Float(0.0, 1.0)}
    assert sweep.trials_of(study) == 4
    assert sweep.n_seeds == 5


def test_a_fixed_hyperparameter_is_not_searched(tmp_path: Path) -> None:
    sweep = read(tmp_path, GOOD.replace("- constant", "- {name: constant, x: 1e-2}"))
    (study,) = sweep.studies
    assert study.space == {}
    assert study.search is None
    assert study.method.settings["x"] == 0.01
    assert sweep.trials_of(study) == 0


@pytest.mark.parametrize(
    ("entry", "space"),
    [
        ("{min: 0.1, max: 0.9}", Float(0.1, 0.9)),
        ("{low: 0.1, high: 0.9, log: true}", Float(0.1, 0.9, log=True)),
        ("{distribution: log_uniform_values, min: 1e-4, max: 1e-2}", Float(1e-4, 1e-2, log=True)),
        ("{values: [0.1, 0.2]}", Choice(0.1, 0.2)),
        ("{min: 0, max: 1}", Float(0.0, 1.0)),  # the field is a float, whatever the bounds
    ],
)
def test_parameters_replace_the_search_space(
    tmp_path: Path, entry: str, space: Float | Choice
) -> None:
    text = GOOD.replace("- constant", f"- {{name: constant, parameters: {{x: {entry}}}}}")
    (study,) = read(tmp_path, text).studies
    assert study.space == {"x": space}
    assert space.contains(study.method.settings["x"])  # trial 0 lies within it


def test_a_constant_parameter_is_fixed(tmp_path: Path) -> None:
    text = GOOD.replace("- constant", "- {name: constant, parameters: {x: {value: 0.25}}}")
    (study,) = read(tmp_path, text).studies
    assert study.space == {}
    assert study.method.settings["x"] == 0.25


def test_without_search_nothing_is_searched(tmp_path: Path) -> None:
    sweep = read(tmp_path, GOOD.replace("search: {sampler: tpe, trials: 4}", ""))
    assert sweep.trials_of(sweep.studies[0]) == 0


def test_a_grid_has_as_many_trials_as_points(tmp_path: Path) -> None:
    text = GOOD.replace("{sampler: tpe, trials: 4}", "{sampler: grid}")
    text = text.replace("- constant", "- {name: constant, parameters: {x: {values: [0, 0.5, 1]}}}")
    sweep = read(tmp_path, text)
    assert sweep.trials_of(sweep.studies[0]) == 3


def test_the_same_method_twice_is_told_apart_by_what_differs(tmp_path: Path) -> None:
    sweep = read(tmp_path, GOOD.replace("- constant", "- constant\n  - {name: constant, x: 0.1}"))
    assert [study.labels[1] for study in sweep.studies] == ["constant", "constant(x=0.1)"]


def test_overrides_win_over_the_file(tmp_path: Path) -> None:
    sweep = read(tmp_path, GOOD, "tasks.0.target=1e-1", "evaluate.seeds=2", "search.trials=7")
    assert sweep.studies[0].task.settings["target"] == 0.1
    assert sweep.n_seeds == 2
    assert sweep.trials_of(sweep.studies[0]) == 7


def test_equal_documents_have_equal_keys_whatever_their_spelling(tmp_path: Path) -> None:
    one = read(tmp_path, GOOD).studies[0]
    other = read(tmp_path, GOOD.replace("- guess", "- {name: guess, target: 3e-1}")).studies[0]
    assert one.key == other.key


def test_the_number_of_trials_is_not_part_of_a_study(tmp_path: Path) -> None:
    one = read(tmp_path, GOOD).studies[0]
    assert one.key == read(tmp_path, GOOD, "search.trials=100").studies[0].key
    assert one.key != read(tmp_path, GOOD, "search.seed=1").studies[0].key


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("- constant", "- constnat",
         "sweep.yaml:5: methods[0]: no method 'constnat' is installed; did you mean 'constant'?"),
        ("- guess", "- gues", "sweep.yaml:3: tasks[0]: no task 'gues' is installed; "
         "did you mean 'guess'?"),
        ("- guess", "- {name: guess, targt: 1}",
         "sweep.yaml:3: tasks[0].targt: unknown field; did you mean 'target'?"),
        ("- constant", "- {name: constant, x: 2}",
         "sweep.yaml:5: methods[0].x: must be in [0, 1], but got 2"),
        ("- constant", "- {name: constant, x: '0.5'}",
         "sweep.yaml:5: methods[0].x: must be a number, but got '0.5'"),
        ("- constant", "- {name: constant, x: true}",
         "sweep.yaml:5: methods[0].x: must be a number, but got true"),
        ("- guess", "- {name: guess, n_steps: 1.5}",
         "sweep.yaml:3: tasks[0].n_steps: must be a whole number, but got 1.5"),
        ("trials: 4", "trials: 0", "sweep.yaml:6: search.trials: must be at least 1, but got 0"),
        ("trials: 4", "trails: 4", "sweep.yaml:6: search.trails: unknown key; "
         "did you mean 'trials'?"),
        ("tpe, trials: 4", "tpe", "sweep.yaml:6: search: sampler tpe needs `trials`, the number "
         "of configurations a study"),
        ("sampler: tpe", "sampler: bayes", "sweep.yaml:6: search.sampler: must be 'tpe', 'random' "
         "or 'grid', but got 'bayes'"),
        ("name: demo", "name: ../demo", "sweep.yaml:1: name: must be letters, digits and "
         ". _ -, a letter or digit first, but got '../demo'"),
        ("name: demo\n", "", "sweep.yaml:1: 'name' is missing"),
        ("- constant", "- constant\n  - constant",
         "sweep.yaml:6: methods[1]: labels must differ, but 'constant' stands twice; "
         "give each a `label`"),
        ("- constant", "- {name: constant, parameters: {y: {min: 0, max: 1}}}",
         "sweep.yaml:5: methods[0].parameters.y: unknown field; known: x"),
        ("- constant", "- {name: constant, x: 0.1, parameters: {x: {min: 0, max: 1}}}",
         "sweep.yaml:5: methods[0].parameters.x: is fixed beside `parameters` too; remove one of "
         "the two"),
        ("- constant", "- {name: constant, parameters: {x: {min: 0.5, max: 0.1}}}",
         "sweep.yaml:5: methods[0].parameters.x: low < high must hold, but got low=0.5, high=0.1"),
        ("- constant", "- {name: constant, parameters: {x: {min: 0.5, max: 3}}}",
         "sweep.yaml:5: methods[0].parameters.x: must be in [0, 1], but got 3"),
        ("- constant",
         "- {name: constant, parameters: {x: {distribution: log_uniform, min: -4, max: -1}}}",
         "sweep.yaml:5: methods[0].parameters.x: `log_uniform` is ambiguous (bounds as exponents, "
         "or as values?); use `log_uniform_values` with min and max as values"),
        ("- constant", "- {name: constant, parameters: {x: 0.5}}",
         "sweep.yaml:5: methods[0].parameters.x: must be a mapping such as "
         "{min: 1e-4, max: 1e-2}, but got 0.5; a fixed value stands beside `parameters`, "
         "not in it"),
        ("- constant", "- {name: constant, parameters: {x: {values: [0.5, 5e-1]}}}",
         "sweep.yaml:5: methods[0].parameters.x: values must differ, but got [0.5, 0.5]"),
        ("- constant",
         "- {name: constant, parameters: {x: {distribution: int_uniform, min: 0, max: 1}}}",
         "sweep.yaml:5: methods[0].parameters.x: is a real number; use uniform or "
         "log_uniform_values"),
        ("trials: 4}", "trials: 4}\nresources: {gpu: .inf}",
         "sweep.yaml:7: resources.gpu: must be a finite number, but got inf"),
        ("sampler: tpe, trials: 4", "sampler: grid",
         "sweep.yaml:6: search: sampler grid needs `values` under some method's `parameters`, "
         "but got none"),
        ("sampler: tpe, trials: 4", "sampler: tpe, trials: 4}\nmetric: {name: rmse",
         "sweep.yaml:7: metric: task guess has no metric 'rmse'; known: closeness"),
        ("- constant", "- constant: {x: 0.2}",
         "sweep.yaml:5: methods[0]: 'name' is missing; write {name: constant, x: 0.2}"),
        ("- constant", "- constant:\n    x: 0.2",
         "sweep.yaml:5: methods[0]: 'name' is missing; write {name: constant, x: 0.2}"),
        ("- guess", "- guess:",
         "sweep.yaml:3: tasks[0]: 'name' is missing; write {name: guess}"),
        ("- constant", "- {x: 0.2}", "sweep.yaml:5: methods[0]: 'name' is missing"),
        ("- constant", "- 3",
         "sweep.yaml:5: methods[0]: must be a name, or a mapping with name, but got 3"),
        ("- constant", "- {name: constant, parameters: [x]}",
         "sweep.yaml:5: methods[0].parameters: must be a mapping, but got ['x']"),
        ("- constant", "- {name: constant, label: 3}",
         "sweep.yaml:5: methods[0].label: must be text, but got 3"),
        ("- guess", "- {name: guess, s: 1}",
         "sweep.yaml:3: tasks[0].s: unknown field; known: n_steps, seconds, target"),
        ("- guess", "- {name: guess, ns: 1}",
         "sweep.yaml:3: tasks[0].ns: unknown field; did you mean 'n_steps'?"),
        ("\n  - constant", " []",
         "sweep.yaml:4: methods: must have at least one entry, but got []"),
        ("\n  - constant", " constant",
         "sweep.yaml:4: methods: must be a list, but got 'constant'"),
        ("- constant", "- {name: failing, mark: [[1]]}",
         "sweep.yaml:5: methods[0].mark: must be text, in quotes, but got [[1]]"),
        ("trials: 4}", "trials: 4}\nevaluate: 3",
         "sweep.yaml:7: evaluate: must be a mapping with seeds, but got 3"),
        ("trials: 4}", "trials: 4}\nresources: [1]",
         "sweep.yaml:7: resources: must be a mapping with cpu, gpu and memory, but got [1]"),
        ("trials: 4}", "trials: 4}\nresources: {cpu: 1.5}",
         "sweep.yaml:7: resources.cpu: must be a whole number, but got 1.5"),
        ("trials: 4}", "trials: 4}\nresources: {gpu: 2000}",
         "sweep.yaml:7: resources.gpu: must be at most 1024, but got 2000"),
        ("trials: 4}", "trials: 4}\nresources: {gpu: yes}",
         "sweep.yaml:7: resources.gpu: must be a number, but got 'yes'"),
        ("trials: 4}", "trials: 4}\nmetric: {name: closeness, goal: up}",
         "sweep.yaml:7: metric.goal: must be 'maximize' or 'minimize', but got 'up'"),
        ("trials: 4}", "trials: 4}\nmetric: [closeness]",
         "sweep.yaml:7: metric: must be a mapping with name and goal, but got ['closeness']"),
        ("name: demo", f"name: {101 * 'a'}", "sweep.yaml:1: name: must have 100 characters at "
         f"most, but got '{56 * 'a'}..."),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(tmp_path: Path, old: str, new: str, line: str) -> None:
    assert old in GOOD
    assert mistakes(tmp_path, GOOD.replace(old, new)) == [line]


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("trials: 4", "trials: -1").replace("- guess", "- gess")
    text = text.replace("- constant", "- {name: constant, x: 2, z: 1}")
    assert len(mistakes(tmp_path, text)) == 4


def test_mistakes_are_told_in_the_order_of_lines(tmp_path: Path) -> None:
    text = """\
resources: {cpu: 0}
methods:
  - constnat
  - {name: constant, label: c, x: 2, y: 1}
search: {sampler: tpe}
metric: closness
tasks:
  - {name: guess, n_steps: -1}
  - {name: guess, targt: 1}
  - gues
evaluate: [3]
"""
    told = mistakes(tmp_path, text, "methods.1.z=1", "nowhere")
    assert told[0].startswith("--set nowhere: ")
    assert told[1].startswith("--set methods.1.z=1: unknown field")
    assert [int(line.split(":")[1]) for line in told[2:]] == [1, 1, 3, 4, 4, 5, 6, 8, 9, 10, 11]


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("{n_members: 2}", "n_members: 2"),
        ("\n      n_members: 2", "n_members: 2"),
        ("[0.1, 0.3]", "0.1, 0.3"),
        ("0.1", "0.1"),
        ("2020-01-02", "2020-01-02"),
        ("'n_members: 2'", "n_members: 2"),
    ],
)
def test_a_text_field_takes_other_values_as_their_text(
    tmp_path: Path, written: str, text: str
) -> None:
    entry = f"- name: failing\n    mark: {written}\n"
    (study,) = read(tmp_path, GOOD.replace("- constant", entry)).studies
    assert study.method.settings["mark"] == text


@pytest.mark.parametrize("value", ["n_members: 2, rate: 0.1", "{n_members: 2, rate: 0.1}"])
def test_an_override_of_a_text_field_needs_no_quotes(tmp_path: Path, value: str) -> None:
    text = GOOD.replace("- constant", "- failing")
    (study,) = read(tmp_path, text, f"methods.0.mark={value}").studies
    assert study.method.settings["mark"] == "n_members: 2, rate: 0.1"


def test_a_rule_of_the_methods_own_is_told_of_its_setting(tmp_path: Path) -> None:
    entry = '{name: mc_dropout, rate: 0.1,\n     layer_rates: "2"}'
    (line,) = mistakes(tmp_path, GOOD.replace("constant", entry))
    assert line.startswith("sweep.yaml:6: methods[0].layer_rates: must be numbers in ")


def test_a_duplicate_key_is_refused(tmp_path: Path) -> None:
    (line,) = mistakes(tmp_path, GOOD + "name: again\n")
    assert line == ("sweep.yaml:7: name: a key must stand once, but line 1 has it too; remove one")


@pytest.mark.parametrize("text", ["name: [", "a: b: c", "\tname: x", "&a [*a]"])
def test_broken_yaml_is_one_line(tmp_path: Path, text: str) -> None:
    (line,) = mistakes(tmp_path, text)
    assert line.startswith("sweep.yaml:1:")


@pytest.mark.parametrize("text", ["", "[]", "just words"])
def test_a_document_must_be_a_mapping(tmp_path: Path, text: str) -> None:
    assert mistakes(tmp_path, text) == ["sweep.yaml:1: must be a mapping with tasks and methods"]


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InvalidSweepError, match=r"nowhere\.yaml: no such file"):
        read_sweep(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("seeds", "--set seeds: must be KEY=VALUE, such as --set evaluate.seeds=3"),
        ("tasks.3.target=1", "--set tasks.3.target=1: tasks has no entry 3, 0 first"),
        ("name.x=1", "--set name.x=1: name holds a value, not keys"),
        ("name=[", "--set name=[: the value is not valid YAML"),
        (
            "name={a: 1, a: 2}",
            "--set name={a: 1, a: 2}: a key must stand once, and an anchor "
            "must not contain itself",
        ),
        (
            "name=&a [*a]",
            "--set name=&a [*a]: a key must stand once, and an anchor must not contain itself",
        ),
        ("tasks.²=1", "--set tasks.²=1: tasks has no entry ², 0 first"),
        (
            "evaluate.seeds=0",
            "--set evaluate.seeds=0: must be at least 1, but got 0",
        ),
        (
            "methods.0={name: constant, x: 7}",
            "--set methods.0={name: constant, x: 7}: x: must be in [0, 1], but got 7",
        ),
    ],
)
def test_a_wrong_override_is_one_line(tmp_path: Path, override: str, line: str) -> None:
    assert mistakes(tmp_path, GOOD, override) == [line]


def test_words_that_yaml_1_1_takes_for_booleans_stay_words(tmp_path: Path) -> None:
    assert read(tmp_path, GOOD.replace("demo", "no")).name == "no"
