"""Keys: equal for what gives equal numbers, different for anything else."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bhnbench.space import Choice, Float, Int
from bhnbench.specs import (
    EarlyTermination,
    PluginSpec,
    RunSpec,
    SearchSpec,
    StudySpec,
    digest,
    run_from_json,
    run_to_json,
    space_from_json,
    space_to_json,
    study_from_json,
    study_to_json,
)

TASK = PluginSpec("task", "1", {"n": 3}, "a:Task", data_digest="abc")
METHOD = PluginSpec("method", "1", {"rate": 0.5, "flow": "iaf"}, "b:Method")
RUN = RunSpec(TASK, METHOD, "search", 0)
SPACE = {"rate": Float(0.1, 1, log=True), "depth": Int(1, 4), "flow": Choice("iaf", 2, None)}
STUDY = StudySpec(
    task=TASK,
    method=METHOD,
    space=SPACE,
    search=SearchSpec("tpe", 0, EarlyTermination(2, 3)),
    metric="nll",
    direction="minimize",
    labels=("a task", "a method"),
)

plain = (
    st.none()
    | st.booleans()
    | st.integers(-99, 99)
    | st.floats(-9, 9)
    | st.text("abé ", max_size=3)
)
settings = st.dictionaries(st.text("abc", min_size=1, max_size=3), plain, max_size=4)


def through_json(content):
    return json.loads(json.dumps(content, allow_nan=False))


@given(settings, st.sampled_from(["search", "evaluate"]), st.integers(0, 99))
def test_a_run_survives_json(values, phase, seed):
    run = RunSpec(TASK, replace(METHOD, settings=values), phase, seed)
    back = run_from_json(through_json(run_to_json(run)))
    assert back == run
    assert back.key == run.key


@pytest.mark.parametrize("search", [None, SearchSpec("grid", 1, None), STUDY.search])
def test_a_study_survives_json(search):
    study = replace(STUDY, search=search)
    back = study_from_json(through_json(study_to_json(study)), study.labels)
    assert back == study
    assert back.key == study.key
    assert back.labels == study.labels


def test_a_space_survives_json():
    assert space_from_json(through_json(space_to_json(SPACE))) == SPACE


@given(settings)
def test_the_order_of_settings_does_not_matter(values):
    forward = replace(METHOD, settings=values)
    backward = replace(METHOD, settings=dict(reversed(values.items())))
    assert replace(RUN, method=forward).key == replace(RUN, method=backward).key


@given(settings, settings)
def test_other_settings_give_another_key(first, second):
    keys = {replace(RUN, method=replace(METHOD, settings=s)).key for s in (first, second)}
    same = json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)
    assert len(keys) == (1 if same else 2)


@pytest.mark.parametrize(
    "other",
    [
        replace(RUN, seed=1),
        replace(RUN, phase="evaluate"),
        replace(RUN, task=replace(TASK, name="other")),
        replace(RUN, task=replace(TASK, version="2")),
        replace(RUN, task=replace(TASK, data_digest="abd")),
        replace(RUN, task=METHOD, method=TASK),
        replace(RUN, method=replace(METHOD, version="2")),
        replace(RUN, method=replace(METHOD, settings={"rate": 0.5})),
    ],
)
def test_whatever_decides_the_numbers_is_in_the_key_of_a_run(other):
    assert other.key != RUN.key


def test_where_a_file_lies_is_in_no_key():
    """Its content is, by the digest of the data."""
    here = replace(TASK, settings={"dataset": "mine.npz"}, files=["dataset"])
    there = replace(here, settings={"dataset": "/data/yours.npz"})
    assert replace(RUN, task=here).key == replace(RUN, task=there).key
    assert replace(STUDY, task=here).key == replace(STUDY, task=there).key
    changed = replace(there, data_digest="of other bytes")
    assert replace(RUN, task=here).key != replace(RUN, task=changed).key


def test_where_a_plugin_lies_is_in_no_key():
    moved = replace(METHOD, target="elsewhere:Method")
    assert replace(RUN, method=moved).key == RUN.key
    assert replace(STUDY, method=moved).key == STUDY.key


@pytest.mark.parametrize(
    "other",
    [
        replace(STUDY, space={"rate": Float(0.1, 1)}),
        replace(STUDY, space=SPACE | {"depth": Int(1, 5)}),
        replace(STUDY, search=None),
        replace(STUDY, search=SearchSpec("tpe", 0, None)),
        replace(STUDY, search=SearchSpec("random", 0, EarlyTermination(2, 3))),
        replace(STUDY, metric="accuracy"),
        replace(STUDY, direction="maximize"),
        replace(STUDY, task=replace(TASK, settings={"n": 4})),
    ],
)
def test_whatever_decides_a_search_is_in_the_key_of_a_study(other):
    assert other.key != STUDY.key


def test_labels_are_for_people():
    relabelled = replace(STUDY, labels=("x", "y"))
    assert relabelled == STUDY
    assert relabelled.key == STUDY.key


def test_search_is_scored_on_validation_and_evaluation_on_test():
    assert RUN.holdout == "validation"
    assert replace(RUN, phase="evaluate").holdout == "test"


def test_a_trial_overrides_the_settings_of_its_method():
    run = STUDY.search_run({"rate": 0.25})
    assert run.method.settings == {"rate": 0.25, "flow": "iaf"}
    assert (run.phase, run.seed, run.task) == ("search", 0, TASK)
    assert STUDY.run({}, "evaluate", 4) == RunSpec(TASK, METHOD, "evaluate", 4)


def test_a_number_that_is_none_has_no_digest():
    with pytest.raises(ValueError, match="JSON"):
        digest({"rate": float("nan")})
