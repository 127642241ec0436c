"""Intervals over seeds against scipy's own, and against what they promise."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from debiaslib.errors import InputError
from debiaslib.metrics.intervals import mean_interval, paired_ratio

POSITIVE = st.lists(st.tuples(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3)), min_size=2, max_size=8)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=10), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_the_mean_is_scipys(values, level):
    mean, low, high = mean_interval(values, level)
    assert mean == pytest.approx(np.mean(values))
    if np.ptp(values) > 1e-6:
        wanted = stats.t.interval(level, len(values) - 1, np.mean(values), stats.sem(values))
        assert (low, high) == pytest.approx(wanted, rel=1e-9, abs=1e-9)


@given(POSITIVE)
def test_a_ratio_is_the_exponential_of_a_paired_t_test(pairs):
    ours, theirs = np.array(pairs).T
    ratio, low, high = paired_ratio(ours, theirs)
    assert ratio == pytest.approx(stats.gmean(ours) / stats.gmean(theirs))
    spread = np.log(ours / theirs)
    if np.ptp(spread) > 1e-6:
        wanted = stats.ttest_rel(np.log(ours), np.log(theirs)).confidence_interval(0.95)
        assert (math.log(low), math.log(high)) == pytest.approx((wanted.low, wanted.high), rel=1e-6, abs=1e-9)


@given(POSITIVE)
def test_a_ratio_turned_round(pairs):
    ours, theirs = np.array(pairs).T
    ratio, low, high = paired_ratio(ours, theirs)
    assert paired_ratio(theirs, ours) == pytest.approx((1 / ratio, 1 / high, 1 / low), rel=1e-6)


def test_pairing_removes_what_a_seed_does_to_both():
    """Seeds that double everything leave the ratio's interval narrow, where an unpaired one would be wide."""
    seeds = np.array([1.0, 2.0, 4.0])
    ratio, low, high = paired_ratio(seeds * [0.5, 0.51, 0.49], seeds)
    assert ratio == pytest.approx(0.5, rel=0.01) and high / low < 1.25


def test_a_seed_that_was_not_trained_is_left_out():
    assert paired_ratio([2, math.nan, 8], [1, 1, 2]) == paired_ratio([2, 8], [1, 2])
    assert paired_ratio([2, 8], [1, math.nan])[0] == 2


def test_coverage():
    """95 % of the intervals of three normal numbers hold the truth."""
    draws = np.random.default_rng(0).normal(3, 2, (4000, 3))
    held = [low <= 3 <= high for _, low, high in map(mean_interval, draws)]
    assert abs(np.mean(held) - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 4000)


def test_one_seed_has_no_interval():
    mean, low, high = mean_interval([2.0])
    assert mean == 2 and math.isnan(low) and math.isnan(high)


@pytest.mark.parametrize("values", [[], [math.nan, 1], [math.inf], [[1, 2]]])
def test_what_has_no_mean(values):
    with pytest.raises(InputError, match="at least one number, all finite"):
        mean_interval(values)


@pytest.mark.parametrize(
    "ours, theirs, part",
    [
        ([1, 2], [1], "paired with 1"),
        ([0, 1], [1, 1], "above 0"),
        ([1, 1], [1, math.inf], "above 0"),
        ([], [], "give"),
        ([1, math.nan], [math.nan, 1], "no seed has both"),
    ],
)
def test_what_has_no_ratio(ours, theirs, part):
    with pytest.raises(InputError, match=part):
        paired_ratio(ours, theirs)
