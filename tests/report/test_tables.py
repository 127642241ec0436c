"""How the report writes numbers."""

import math

import pytest

from debiaslib.report import tables as report_tables
from debiaslib.study.experiment import load_experiment


@pytest.mark.parametrize(
    "value, text",
    [
        (73.734, "73.7"),
        (0.000123456, "0.000123"),
        (8668.2, "8,668"),
        (0, "0"),
        (-0.00823, "-0.00823"),
        (6.6e-16, "6.60e-16"),
    ]
    + [(math.nan, "–"), (None, "–")],
)
def test_numbers(value, text):
    assert report_tables.number(value) == text


def test_numbers_with_intervals():
    assert report_tables.with_interval(73.734, 4.21) == "73.7 ± 4.2"
    assert report_tables.with_interval(8668.2, 161.3) == "8,668 ± 161"
    assert report_tables.with_interval(0.0123, 0.00096) == "0.01230 ± 0.00096"
    assert report_tables.with_interval(1, 0) == "1.00 ± 0"
    assert [report_tables.duration(s) for s in (4.06, 723, 7500)] == ["4.1 s", "12 min 3 s", "2 h 5 min"]
    assert report_tables.few(load_experiment("quick").curve_timesteps)[-1] == 999
