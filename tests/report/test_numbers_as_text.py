"""How the report writes numbers."""

import math

import pytest

from debiaslib.report.numbers_as_text import bracketed, describe_spread, duration, number, with_interval


@pytest.mark.parametrize(
    ("value", "text"),
    [(73.734, "73.7"), (0.000123456, "0.000123"), (8668.2, "8,668"), (0, "0"), (-0.00823, "-0.00823"),
     (6.6e-16, "6.60e-16"), (math.nan, "–"), (None, "–")],
)  # fmt: skip
def test_numbers(value, text):
    assert number(value) == text


def test_numbers_with_intervals():
    assert with_interval(73.734, 4.21) == "73.7 ± 4.2" and with_interval(8668.2, 161.3) == "8,668 ± 161"
    assert with_interval(0.0123, 0.00096) == "0.01230 ± 0.00096" and with_interval(1, 0) == "1.00 ± 0"
    assert with_interval(9, math.nan) == "9.00"
    assert [duration(s) for s in (4.06, 723, 7500)] == ["4.1 s", "12 min 3 s", "2 h 5 min"]


def test_one_seed_has_no_brackets():
    assert bracketed(0.45, 0.31, 0.65) == "0.45 [0.31, 0.65]" and bracketed(0.45, math.nan, math.nan) == "0.45"
    assert bracketed(math.nan, math.nan, math.nan) == "–"


def test_a_small_ratio_keeps_two_digits():
    assert bracketed(0.0211, 0.000798, 0.556) == "0.021 [0.0008, 0.56]"


def test_an_interval_needs_three_seeds():
    assert describe_spread(1) == "one seed, no interval"
    assert describe_spread(2) == "mean ± half the 95 % t-interval over 2 seeds"
