"""YAML values as text, and text as YAML values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bhnbench.sweep.yaml_file import parse_value
from bhnbench.yaml_text import as_text, in_short, in_yaml

words = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=5)
scalars = (
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | words
    | st.floats(allow_nan=False, allow_infinity=False)
)  # fmt: skip


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"n_members": 2}, "n_members: 2"),
        ({"rate": 0.2, "weight_decay": 1}, "rate: 0.2, weight_decay: 1"),
        ({"flow": "iaf", "fast": True, "limit": None}, "flow: iaf, fast: true, limit: null"),
        ({"x": "0.5", "y": "true", "z": "a, b"}, 'x: "0.5", y: "true", z: "a, b"'),
        ({"layer_rates": [0.1, 0.3]}, 'layer_rates: "0.1, 0.3"'),
        ({"inner": {"rate": 0.1}}, 'inner: "rate: 0.1"'),
        ([0.1, 0.3], "0.1, 0.3"),
        (["blur", "salt_and_pepper"], "blur, salt_and_pepper"),
        ({}, ""),
        ([], ""),
        (0.1, "0.1"),
        (1e-5, "1e-05"),
        (3, "3"),
        (False, "false"),
    ],
)
def test_a_value_is_the_text_that_yaml_has(value, text):
    assert as_text(value) == text


@pytest.mark.parametrize(
    "value",
    [
        None,
        [[1, 2]],
        ["a, b"],
        [{"a": 1}],
        {"a b": 1},
        {1: 2},
        {"null": 1},
        {"a": [[1]]},
        object(),
    ],
)
def test_what_could_be_read_in_another_way_is_no_text(value):
    assert as_text(value) is None


names = st.from_regex(r"\A[a-z_]+\Z").filter(lambda name: as_text({name: 1}) is not None)


@given(st.dictionaries(names, scalars, min_size=1, max_size=4))
def test_the_text_of_a_mapping_is_read_as_the_same_mapping(content):
    assert parse_value(f"{{{as_text(content)}}}") == content


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=4))
def test_the_text_of_numbers_holds_them_exactly(numbers):
    assert [float(part) for part in as_text(numbers).split(",") if part] == numbers


def test_values_in_messages_and_lists():
    assert [in_yaml(v) for v in (None, True, 0.5, "a")] == ["null", "true", "0.5", "'a'"]
    shown = [in_short(v) for v in (None, False, 2, "iaf", "", "n_members: 2", 'a "b"')]
    assert shown == ["null", "false", "2", "iaf", '""', '"n_members: 2"', r'"a \"b\""']
