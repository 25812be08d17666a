"""YAML of unknown origin."""

import pytest

from modules.plain_yaml import MOST_LEVELS, plain_yaml


def test_values_are_those_of_the_safe_schema():
    assert plain_yaml("a: 1\nb: [x, 2.5, true]\nc: &c {d: 1}\ne: *c") == {
        "a": 1, "b": ["x", 2.5, True], "c": {"d": 1}, "e": {"d": 1},
    }  # fmt: skip
    assert plain_yaml("") is None


@pytest.mark.parametrize(("text", "value"), [("1e-3", 1e-3), ("1e3", 1e3), ("-2.E+5", -2e5)])
def test_a_number_needs_no_dot_before_its_exponent(text: str, value: float):
    assert plain_yaml(text) == value


@pytest.mark.parametrize("text", ["1e", "e3", "1e3x", "v1.0e"])
def test_text_that_looks_like_one_stays_text(text: str):
    assert plain_yaml(text) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: 2024-99-99", "month"),
        ("a: " + "9" * 9999, "digits"),
        ("[" * (MOST_LEVELS + 1) + "]" * (MOST_LEVELS + 1), "levels"),
        ("a: &a [*a]", "contains itself"),
        ("a: &a {<<: *a}", "contains itself"),
        ("a: !!python/name:os.system", "line 1: "),
        ("a: x\nb: [", "line 2: "),
        ("x" * 10**6, "characters"),
        ("a: &a [x, x]\nb: [" + ", ".join(["*a"] * 20_000) + "]", "values"),
    ],
)
def test_what_python_cannot_hold_is_one_line(text: str, reason: str):
    with pytest.raises(ValueError, match=reason) as caught:
        plain_yaml(text)
    assert "\n" not in str(caught.value)
