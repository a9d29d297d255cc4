"""Hyperparameters: declared once, checked everywhere."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bhnbench.space import (
    Choice,
    ChoiceOrFile,
    Field,
    Float,
    Int,
    fields_of,
    hyperparameter,
    setting,
    settings_of,
)

finite = st.floats(-1e6, 1e6)
whole = st.integers(-1000, 1000)
values = st.none() | st.booleans() | whole | finite | st.text("abé ", max_size=3)


@st.composite
def spaces(draw):
    kind = draw(st.sampled_from([Float, Int, Choice]))
    if kind is Choice:
        return Choice(*draw(st.lists(values, min_size=1, max_size=4)))
    low, high = sorted(draw(st.tuples(*2 * [finite if kind is Float else whole])))
    assume(low < high)
    return kind(low, high, log=low > 0 and draw(st.booleans()))


@given(spaces(), finite | whole)
def test_the_nearest_value_is_a_member_and_a_member_is_its_own_nearest(space, value):
    nearest = space.nearest(value)
    assert space.contains(nearest)
    if space.contains(value):
        assert nearest == value


@given(spaces(), values)
def test_membership_is_decided_for_any_value(space, value):
    assert isinstance(space.contains(value), bool)
    if isinstance(space, Float | Int) and space.contains(value):
        assert space.low <= value <= space.high


@pytest.mark.parametrize("space", [Float(0, 1), Int(0, 1)])
@pytest.mark.parametrize("value", [True, False, "1", None, -0.1, 2, math.nan, math.inf])
def test_numbers_are_numbers_within_bounds(space, value):
    assert not space.contains(value)


def test_whole_numbers_are_no_floats():
    assert Int(0, 5).contains(5)
    assert not Int(0, 5).contains(5.0)
    assert Float(0, 5).contains(5)


def test_a_choice_tells_types_apart():
    assert Choice(1, "a", None).contains(None)
    assert not Choice(1).contains(True)
    assert not Choice(1).contains(1.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Float(0.1, 0.01), "low < high must hold, but got low=0.1, high=0.01"),
        (lambda: Int(3, 3), "low < high must hold, but got low=3, high=3"),
        (lambda: Float(0, 1, log=True), "low > 0 must hold on a log scale, but got low=0"),
        (lambda: Int(0, 9, log=True), "low > 0 must hold on a log scale, but got low=0"),
        (lambda: Float(math.nan, 1), "low < high must hold, but got low=nan, high=1"),
        (lambda: Choice(), "at least one value must be listed, but got none"),
    ],
)
def test_a_space_that_makes_no_sense_is_refused(make, message):
    with pytest.raises(ValueError, match="^" + message):
        make()


@pytest.mark.parametrize(
    ("space", "text"),
    [
        (Float(1e-4, 0.01, log=True), "[0.0001, 0.01] log"),
        (Float(0, 1), "[0, 1]"),
        (Int(1, 8), "1 ... 8"),
        (Choice("iaf", 2, None), "iaf | 2 | null"),
    ],
)
def test_a_space_reads_as_people_write_it(space, text):
    assert str(space) == text


@dataclass(frozen=True, kw_only=True)
class Plugin:
    rate: float = hyperparameter(0.5, "a rate", valid=Float(0, 0.99), search=Float(0.1, 0.6))
    depth: int = setting(2, "a depth", valid=Int(1, 3))
    flow: str = setting("iaf", "a flow", valid=Choice("iaf", "affine"))
    limit: int | None = setting(None, "a limit", valid=Int(1, 9))
    fast: bool = setting(False, "a switch")


@dataclass(frozen=True, kw_only=True)
class Derived(Plugin):
    extra: float = setting(1.0, "one more")
    depth: int = setting(9, "another depth")


@dataclass(frozen=True, kw_only=True)
class Worded(Plugin):
    name: str = setting("", "any text")
    rates: str | None = setting(None, "any text, or none")
    data: str = setting("digits", "data", valid=ChoiceOrFile("digits", suffix=".npz"))


def test_fields_say_what_was_declared():
    field = fields_of(Plugin)["rate"]
    assert field == Field("rate", float, 0.5, "a rate", Float(0, 0.99), Float(0.1, 0.6))
    types = {name: f.type_name for name, f in fields_of(Plugin).items()}
    expected = {"rate": "float", "depth": "int", "flow": "str", "limit": "int | null"}
    assert types == expected | {"fast": "bool"}
    assert all(f.search is None for name, f in fields_of(Plugin).items() if name != "rate")


def test_fields_are_inherited_and_redeclared():
    found = fields_of(Derived)
    assert list(found) == ["rate", "depth", "flow", "limit", "fast", "extra"]
    assert (found["depth"].doc, found["depth"].valid) == ("another depth", None)


def test_settings_are_the_values_of_the_fields():
    expected = {"rate": 0.5, "depth": 3, "flow": "iaf", "limit": None, "fast": False}
    assert settings_of(Plugin(depth=3)) == expected


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("rate", 0, 0.0),
        ("rate", 0.25, 0.25),
        ("depth", 2.0, 2),  # 2e0 in YAML
        ("limit", None, None),
        ("limit", 9.0, 9),
        ("fast", True, True),
    ],
)
def test_a_value_is_read_in_the_declared_type(name, given, expected):
    value = fields_of(Plugin)[name].check(given)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("rate", 1.0, r"must be in \[0, 0.99\], but got 1.0"),
        ("rate", "0.5", "must be a number, but got '0.5'"),
        ("rate", True, "must be a number, but got true"),
        ("rate", None, "must be a number, but got null"),
        ("rate", math.nan, "must be a finite number, but got nan"),
        ("rate", math.inf, "must be a finite number, but got inf"),
        ("depth", 2.5, "must be a whole number, but got 2.5"),
        ("depth", False, "must be a whole number, but got false"),
        ("flow", "iav", "must be one of iaf, affine, but got 'iav'"),
        ("limit", 0, r"must be in 1 ... 9, but got 0"),
        ("limit", 0.0, r"must be in 1 ... 9, but got 0"),
        ("limit", "1", "must be a whole number or null, but got '1'"),
        ("fast", 1, "must be true or false, but got 1"),
        ("fast", "yes", "must be true or false, but got 'yes'"),
        ("flow", 3, "must be one of iaf, affine, but got 3"),
        ("data", "b.csv", r"must be one of digits or a file \*.npz, but got 'b.csv'"),
        ("rates", [[1]], r"must be text, in quotes, or null, but got \[\[1\]\]"),
        ("name", None, "must be text, but got null"),
    ],
)
def test_a_wrong_value_is_refused(name, given, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        fields_of(Worded)[name].check(given)


@pytest.mark.parametrize(
    ("given", "text"), [([0.1, 0.3], "0.1, 0.3"), ({"rate": 0.2}, "rate: 0.2"), (0.1, "0.1")]
)
def test_a_text_field_takes_the_text_of_any_value(given, text):
    assert fields_of(Worded)["rates"].check(given) == text


@given(st.sampled_from(list(fields_of(Worded))), values)
def test_a_checked_value_stays_as_it_is_when_checked_again(name, value):
    field = fields_of(Worded)[name]
    try:
        checked = field.check(value)
    except ValueError:
        return
    assert field.check(checked) == checked
    assert type(field.check(checked)) is type(checked)
