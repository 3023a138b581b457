"""Numbers and names as the page shows them."""

from __future__ import annotations

import math

import pytest

from sporeprint.report.numbers import between, cut, decimal, isolated, percent, points, rate, width_of


@pytest.mark.parametrize(
    ("fraction", "shown"), [(0.8764, "87.6"), (1.0, "100.0"), (0.0, "0.0"), (math.nan, "\u2013"), (None, "\u2013")]
)
def test_percent(fraction, shown):
    assert percent(fraction) == shown


@pytest.mark.parametrize(
    ("fraction", "shown"),
    [(0.031, "+3.1"), (-0.031, "\u22123.1"), (0.0004, "0.0"), (-0.0004, "0.0"), (math.nan, "\u2013")],
)
def test_points_have_a_sign_but_nought_has_none(fraction, shown):
    assert points(fraction) == shown


def test_an_interval_is_empty_where_an_end_is_not_known():
    assert between(0.5, 0.625) == "50.0 to 62.5"
    assert between(-0.01, 0.02, signed=True) == "\u22121.0 to +2.0"
    assert between(math.nan, 0.5) == ""


@pytest.mark.parametrize(
    ("per_second", "shown"),
    [(12345.6, "12,346"), (41.2, "41"), (9.34, "9.3"), (0.831, "0.83"), (0.0421, "0.042"), (None, "\u2013")],
)
def test_rates_keep_the_digits_that_matter(per_second, shown):
    assert rate(per_second) == shown


def test_decimals_have_no_minus_on_nought():
    assert decimal(-0.0002, 3) == "0.000"
    assert decimal(-0.5, 1) == "\u22120.5"
    assert decimal(1234.56, 1) == "1,234.6"


def test_a_text_is_cut_only_where_it_does_not_fit():
    assert cut("rose", width_of("rose", 12), 12) == "rose"
    short = cut("a long name of a class", 60, 12)
    assert short.endswith("\u2026")
    assert width_of(short, 12) <= 60
    assert "a long name".startswith(short[:-1])
    assert cut("two\nlines", 500, 12) == "two lines"


def test_wide_letters_take_twice_the_room_and_combining_marks_none():
    assert width_of("睡莲", 10) == pytest.approx(21)
    assert width_of("e\u0301", 10) == width_of("e", 10)


def test_right_to_left_names_are_isolated():
    assert isolated("rose") == "rose"
    assert isolated("\u05e9\u05dc 17") == "\u2068\u05e9\u05dc 17\u2069"
