"""Statistics over seeds against scipy's own and worked examples; the bias of Frechet distances against closed forms."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from debiaslib.errors import InputError
from debiaslib.metrics.distances import frechet_distance
from debiaslib.metrics.statistics import (
    check_equal_n,
    frechet_at_infinity,
    frechet_by_n,
    frechet_of_halves,
    holm,
    logit_interval,
    mean_interval,
    paired_ratio,
    paired_test,
    within_margin,
)

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
    share, low, high = logit_interval([0.01, 0.02, 0.04])
    logits = np.log([0.01 / 0.99, 0.02 / 0.98, 0.04 / 0.96])
    wanted = [1 / (1 + math.exp(-bound)) for bound in mean_interval(logits)]
    assert [share, low, high] == pytest.approx(wanted) and 0 < low < share < high < 1
    assert mean_interval([0.01, 0.02, 0.04])[1] < 0  # what the logit is there for
    assert logit_interval([0.5, 0.5], 100)[0] == pytest.approx(0.5)
    assert logit_interval([1, 1, 1], 9)[0] == pytest.approx(0.95)
    for shares, n in (([1.1], None), ([math.nan], None), ([0, 0.5], None), ([0.5], 0)):
        with pytest.raises(InputError):
            logit_interval(shares, n)


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


# The bias of Frechet distances

D = 8
SHIFT, SCALE = 0.05, np.linspace(0.85, 1.15, D)
TRUTH = SHIFT**2 * D + ((SCALE - 1) ** 2).sum()  # between N(SHIFT, diag(SCALE^2)) and N(0, 1)


def pair(n, seed):
    random = np.random.default_rng(seed)
    return random.standard_normal((n, D)) * SCALE + SHIFT, random.standard_normal((n, D))


def test_the_extrapolated_distance_is_unbiased_and_the_raw_one_is_not():
    raw, extrapolated = [], []
    for seed in range(10):
        generated, reference = pair(400, seed)
        raw.append(frechet_distance(generated, reference))
        table = frechet_by_n(generated, reference, [100, 200, 400], draws=3, seed=seed)
        extrapolated.append(frechet_at_infinity(table).value)
    raw_error, error = (np.std(values, ddof=1) / math.sqrt(10) for values in (raw, extrapolated))
    assert np.mean(raw) - TRUTH > 5 * raw_error
    assert abs(np.mean(extrapolated) - TRUTH) < 3 * error


def test_slope_of_identical_gaussians():
    # E FD of two samples of N(0, 1) in d dimensions: 2d/n from the means, and d(d+1)/(4n) to first order from the
    # covariances, |C1 - C2|^2 / 4 with E|C - 1|^2 = d(d+1)/n each.
    features = np.random.default_rng(0).standard_normal((4000, D))
    fitted = frechet_at_infinity(frechet_of_halves(features, [200, 400, 800, 2000], draws=12))
    assert fitted.slope == pytest.approx(2 * D + D * (D + 1) / 2, rel=0.15)
    assert abs(fitted.value) < 4 * fitted.se


def test_the_table_and_its_seed():
    generated, reference = pair(60, 0)
    table = frechet_by_n(generated, reference, [20, 40], draws=2, seed=3)
    assert table[["n", "draw"]].to_numpy().tolist() == [[20, 0], [20, 1], [40, 0], [40, 1]]
    assert table.equals(frechet_by_n(generated, reference, [20, 40], draws=2, seed=3))
    assert not table.equals(frechet_by_n(generated, reference, [20, 40], draws=2, seed=4))
    whole = frechet_by_n(generated, reference, [60], draws=3)["value"]
    assert whole.to_numpy() == pytest.approx(frechet_distance(generated, reference), rel=1e-8)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda a, b: frechet_by_n(a, b, [61]), "sizes is 61"),
        (lambda a, b: frechet_of_halves(a, [31]), "sizes is 31"),
        (lambda a, b: frechet_by_n(a, b, [8]), "N is 8"),
        (lambda a, b: frechet_by_n(a, b, [20], draws=0), "draws is 0"),
        (lambda a, b: frechet_at_infinity(frechet_by_n(a, b, [20], draws=4)), "two sizes"),
        (lambda a, b: frechet_at_infinity(frechet_by_n(a, b, [20, 40], draws=1)), "three rows"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call(*pair(60, 0))


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
        ([rows("constant", 800, variant="lr=0.1")], "500 for constant; 800 for constant; lr=0.1"),
    ],
)
def test_tables_of_unequal_n_are_refused(others, message):
    with pytest.raises(InputError, match=message):
        check_equal_n(pd.concat([rows("constant"), *others]))
