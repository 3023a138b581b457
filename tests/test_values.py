from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from sporeprint.errors import RecipeError
from sporeprint.features.combine import Combination
from sporeprint.values import (
    DEEPEST,
    from_json,
    is_number,
    json_text,
    kind,
    make,
    parse_json,
    printable,
    to_json,
)


@kind("test-lamp")
@dataclass(frozen=True)
class Lamp:
    removed: ClassVar[dict[str, tuple[Any, str]]] = {
        "flickers": (False, "no lamp should; use Strobe()"),
        "watts": (60, "LEDs took over; use lumens=800"),
    }

    lumens: int = 800


@kind("test-old-lamp")
@dataclass(frozen=True)
class OldLamp(Lamp):
    flickers: bool = False


WHOLE = {"kind": "test-lamp", "lumens": 5, "flickers": False, "watts": 60}


def test_a_removed_field_stays_in_the_json_with_its_last_default():
    assert to_json(Lamp(5)) == WHOLE
    assert from_json(WHOLE) == Lamp(5)
    assert from_json({**WHOLE, "watts": 60.0}) == Lamp(5)


def test_json_without_a_removed_field_is_read_too():
    assert from_json({"kind": "test-lamp", "lumens": 5}) == make(Lamp, {"lumens": 5}) == Lamp(5)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("flickers", True, r"^Lamp flickers=true was removed: no lamp should; use Strobe\(\)$"),
        ("flickers", 0, r"Lamp flickers=0 was removed"),
        ("watts", 40, r"^Lamp watts=40 was removed: LEDs took over; use lumens=800$"),
        ("watts", None, r"Lamp watts=null was removed"),
    ],
)
def test_another_value_of_a_removed_field_is_refused_with_what_to_use(field, value, message):
    with pytest.raises(RecipeError, match=message):
        from_json({**WHOLE, field: value})


def test_a_removed_field_is_no_argument_and_not_listed_among_the_fields():
    with pytest.raises(TypeError):
        Lamp(watts=60)  # type: ignore[call-arg]
    with pytest.raises(RecipeError, match=r"Lamp has no field 'colour'; it has: lumens$"):
        make(Lamp, {"colour": "red"})


def test_a_subclass_can_have_the_field_again():
    assert to_json(OldLamp(5, flickers=True)) == {"kind": "test-old-lamp", "lumens": 5, "flickers": True, "watts": 60}
    assert from_json(to_json(OldLamp(5, flickers=True))) == OldLamp(5, flickers=True)


@pytest.mark.parametrize(
    "text", ["[" * 200_000 + "]" * 200_000, "[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), "{", b"\xff", "9" * 5000]
)
def test_json_that_is_broken_or_too_deep_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"nested|Expecting|decode|digits"):
        parse_json(text)


def test_json_of_the_greatest_depth_is_read():
    value = parse_json("[" * DEEPEST + "1" + "]" * DEEPEST)
    for _ in range(DEEPEST):
        (value,) = value
    assert value == 1


def test_an_integer_that_no_float_can_hold_is_no_number():
    assert is_number(10**300)
    assert not is_number(10**400)
    with pytest.raises(RecipeError, match="expected a number from 0 to 1"):
        Combination(whiten="auto", exponent=10**400)


def test_text_that_does_more_than_stand_there_is_escaped_as_json_does():
    assert printable("a\x1b[2Jb\n\x7f\x9b\u202e\u2067\ud83d\u2028") == (
        "a\\u001b[2Jb\\n\\u007f\\u009b\\u202e\\u2067\\ud83d\\u2028"
    )
    assert printable("é 東京 שלום \U0001f468\u200d\U0001f469 e\u0301 \\n") == (
        "é 東京 שלום \U0001f468\u200d\U0001f469 e\u0301 \\n"
    )


def test_json_text_is_safe_to_show_and_has_the_value():
    value = {"a\x9b": ["\u202e", "\ud83d", "\x00\n", "é\u2028", 0.5, None]}
    for indent in (1, None):
        text = json_text(value, indent=indent)
        assert parse_json(text) == value
        assert text.encode().decode().isprintable() or indent
        assert all(line.isprintable() for line in text.split("\n"))
        assert "é" in text
    assert json_text([1, 2]).split("\n") == ["[", " 1,", " 2", "]"]
    assert json_text([1, 2], indent=None) == "[1, 2]"
