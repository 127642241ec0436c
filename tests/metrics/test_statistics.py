"""Statistics over seeds against scipy's own and worked examples."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from debiaslib.errors import InputError
from debiaslib.metrics.statistics import (
    check_equal_n,
    holm,
    logit_interval,
    mean_interval,
    paired_ratio,
    paired_test,
    within_margin,
)

POSITIVE = st.lists(st.tuples(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3)), min_size=2, max_size=8)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=10))
def test_the_mean_is_scipys(values):
    mean, low, high = mean_interval(values)
    assert mean == pytest.approx(np.mean(values))
    if np.ptp(values) > 1e-6:
        wanted = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
        assert (low, high) == pytest.approx(wanted, rel=1e-9, abs=1e-9)


@given(POSITIVE)
def test_a_ratio_is_the_exponential_of_a_paired_t_test(pairs):
    ours, theirs = np.array(pairs).T
    ratio, low, high = paired_ratio(ours, theirs)
    assert ratio == pytest.approx(stats.gmean(ours) / stats.gmean(theirs))
    assert paired_ratio(theirs, ours) == pytest.approx((1 / ratio, 1 / high, 1 / low), rel=1e-6)
    spread = np.log(ours / theirs)
    if np.ptp(spread) > 1e-6:
        test = stats.ttest_rel(np.log(ours), np.log(theirs))
        wanted = test.confidence_interval(0.95)
        assert (math.log(low), math.log(high)) == pytest.approx((wanted.low, wanted.high), rel=1e-6, abs=1e-9)
        assert paired_test(ours, theirs) == pytest.approx(test.pvalue, rel=1e-6, abs=1e-12)


def test_a_seed_that_was_not_trained_is_left_out():
    assert paired_ratio([2, math.nan, 8], [1, 1, 2]) == paired_ratio([2, 8], [1, 2])
    assert paired_ratio([2, 8], [1, math.nan])[0] == 2
    assert math.isnan(paired_test([2, 8], [1, math.nan]))


def test_one_seed_has_no_interval():
    mean, low, high = mean_interval([2.0])
    assert mean == 2 and math.isnan(low) and math.isnan(high)


def test_holms_worked_example():
    """Four tests: the smallest p times 4, the next times 3, ..., and never below the one before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]).tolist() == [1, 1] and holm([]).tolist() == []
    with_gap = holm([0.01, math.nan, 0.02])
    assert with_gap[[0, 2]] == pytest.approx([0.02, 0.02]) and math.isnan(with_gap[1])


def test_holm_holds_the_family_error():
    """Of ten true null hypotheses at least one is rejected in at most 5 % of families."""
    families = np.random.default_rng(0).uniform(size=(4000, 10))
    rejected = np.mean([(holm(p) < 0.05).any() for p in families])
    assert rejected < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 4000)


@pytest.mark.parametrize(
    "interval, inside",
    [((1, 0.95, 1.05), True), ((1, 0.9, 1.1), True), ((1, 0.89, 1.05), False), ((1, 0.5, 2), False),
     ((1.2, 1.19, 1.21), False), ((1, math.nan, math.nan), False)],
)  # fmt: skip
def test_no_difference_only_inside_the_margin(interval, inside):
    assert within_margin(interval) is inside


def test_shares_on_the_logit_scale():
    share, low, high = logit_interval([0.01, 0.02, 0.04], 10**9)
    logits = np.log([0.01 / 0.99, 0.02 / 0.98, 0.04 / 0.96])
    wanted = [1 / (1 + math.exp(-bound)) for bound in mean_interval(logits)]
    assert [share, low, high] == pytest.approx(wanted) and 0 < low < share < high < 1
    assert mean_interval([0.01, 0.02, 0.04])[1] < 0  # what the logit is there for
    assert logit_interval([0.5, 0.5], 100)[0] == pytest.approx(0.5)
    assert logit_interval([1, 1, 1], 9)[0] == pytest.approx(0.95)
    for share in (1.1, math.nan):
        with pytest.raises(InputError):
            logit_interval([share], 10)


@pytest.mark.parametrize("values", [[], [math.nan, 1], [math.inf], [[1, 2]]])
def test_what_has_no_mean(values):
    with pytest.raises(InputError, match="at least one number, all finite"):
        mean_interval(values)


@pytest.mark.parametrize(
    "ours, theirs, part",
    [([1, 2], [1], "paired with 1"), ([0, 1], [1, 1], "above 0"), ([1, 1], [1, math.inf], "above 0"),
     ([], [], "give"), ([1, math.nan], [math.nan, 1], "no seed has both")],
)  # fmt: skip
def test_what_has_no_ratio(ours, theirs, part):
    for statistic in (paired_ratio, paired_test):
        with pytest.raises(InputError, match=part):
            statistic(ours, theirs)


def rows(weighting, n=500, **changes):
    shared = {"weighting": weighting, "features": "pooled", "n": n, "n_reference": 2048, "weights_sha256": None}
    return pd.DataFrame([{**shared, "metric": metric, **changes} for metric in ("fd_pooled", "recall")])


def test_tables_of_equal_n_pass():
    equal = pd.concat([rows("constant"), rows("debiased"), rows("constant", 800, features="minifaces", metric="fd")])
    assert check_equal_n(equal) is equal


@pytest.mark.parametrize(
    "others, message",
    [
        ([rows("debiased", 1000), rows("p2(k=1,gamma=1)")], r"one n, .* 500 for constant, p2\(.*\); 1000 for debiased"),
        ([rows("debiased", n_reference=10)], "10 for debiased; 2048 for constant"),
        ([rows("debiased", weights_sha256="ab" * 32)], "weights_sha256.* (ab)+ for debiased"),
        ([rows("constant", 800, variant="lr=0.1")], "500 for constant; 800 for constant"),
    ],
)
def test_tables_of_unequal_n_are_refused(others, message):
    with pytest.raises(InputError, match=message):
        check_equal_n(pd.concat([rows("constant"), *others]))
