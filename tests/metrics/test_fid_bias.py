"""Bias of the Frechet distance: closed forms of Gaussians, the extrapolation, and tables that must not be compared."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from debiaslib.errors import InputError
from debiaslib.metrics.distances import frechet_distance
from debiaslib.metrics.fid_bias import check_equal_n, frechet_at_infinity, frechet_by_n, frechet_of_halves

D = 8
SHIFT, SCALE = 0.05, np.linspace(0.85, 1.15, D)
TRUTH = SHIFT**2 * D + ((SCALE - 1) ** 2).sum()  # between N(SHIFT, diag(SCALE^2)) and N(0, 1)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pair(n, seed):
    random = np.random.default_rng(seed)
    return random.standard_normal((n, D)) * SCALE + SHIFT, random.standard_normal((n, D))


def error_of(call, *arguments, **options):
    with pytest.raises(InputError) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_extrapolated_distance_is_unbiased_and_the_raw_one_is_not():
    raw, extrapolated = [], []
    for seed in range(16):
        generated, reference = pair(400, seed)
        raw.append(frechet_distance(generated, reference))
        table = frechet_by_n(generated, reference, [100, 200, 400], draws=3, seed=seed)
        extrapolated.append(frechet_at_infinity(table).value)
    raw_error, error = (np.std(values, ddof=1) / math.sqrt(16) for values in (raw, extrapolated))
    assert np.mean(raw) - TRUTH > 5 * raw_error
    assert abs(np.mean(extrapolated) - TRUTH) < 3 * error
    assert abs(np.mean(extrapolated) - TRUTH) < (np.mean(raw) - TRUTH) / 3


def test_slope_of_identical_gaussians():
    # E FD of two samples of N(0, 1) in d dimensions: 2d/n from the means, and d(d+1)/(4n) to first order from the
    # covariances, |C1 - C2|^2 / 4 with E|C - 1|^2 = d(d+1)/n each.
    features = np.random.default_rng(0).standard_normal((4000, D))
    table = frechet_of_halves(features, [200, 400, 800, 2000], draws=12)
    fitted = frechet_at_infinity(table)
    assert fitted.slope == pytest.approx(2 * D + D * (D + 1) / 2, rel=0.15)
    assert abs(fitted.value) < 4 * fitted.se
    means = table.groupby("n")["value"].mean()
    assert means.is_monotonic_decreasing
    assert means[200] > 20 * abs(fitted.value)


def test_halves_are_disjoint_and_subsets_without_replacement():
    # One image a direction: two sets that share one would have a smaller distance, and a repeated one another trace.
    features = np.concatenate([np.zeros((30, 1)), np.full((30, 1), 1.0)])
    table = frechet_of_halves(features, [30], draws=20)
    for value in table["value"]:
        # With a share p of ones in the first half the second has 1 - p: means differ by 2p - 1, variances are equal.
        p = (math.sqrt(value) + 1) / 2
        assert 30 * p == pytest.approx(round(30 * p), abs=1e-6)
    generated, reference = pair(60, 0)
    whole = frechet_by_n(generated, reference, [60], draws=3)["value"]
    assert whole.to_numpy() == pytest.approx(frechet_distance(generated, reference), rel=1e-8)


def test_the_table_and_its_seed():
    generated, reference = pair(60, 0)
    table = frechet_by_n(generated, reference, [20, 40], draws=2, seed=3)
    assert list(table.columns) == ["n", "draw", "value"]
    assert table[["n", "draw"]].to_numpy().tolist() == [[20, 0], [20, 1], [40, 0], [40, 1]]
    assert table.equals(frechet_by_n(generated, reference, [20, 40], draws=2, seed=3))
    assert not table.equals(frechet_by_n(generated, reference, [20, 40], draws=2, seed=4))


def test_the_fit_is_least_squares():
    random = np.random.default_rng(1)
    n = np.repeat([50, 100, 200, 400], 5)
    value = 0.7 + 30 / n + 0.01 * random.standard_normal(len(n))
    fitted = frechet_at_infinity(pd.DataFrame({"n": n, "value": value}))
    (slope, intercept), covariance = np.polyfit(1 / n, value, 1, cov=True)
    assert (fitted.value, fitted.slope) == pytest.approx((intercept, slope), rel=1e-10)
    assert (fitted.slope_se, fitted.se) == pytest.approx(np.sqrt(np.diag(covariance)), rel=1e-10)
    exact = frechet_at_infinity(pd.DataFrame({"n": n, "value": 0.7 + 30 / n}))
    assert (exact.value, exact.slope) == pytest.approx((0.7, 30), rel=1e-10)
    assert exact.se < 1e-12


def test_the_fits_error_is_that_of_drawing_subsets():
    generated, reference = pair(600, 0)
    fits = [frechet_at_infinity(frechet_by_n(generated, reference, [60, 100, 200], draws=3, seed=s)) for s in range(30)]
    spread = np.std([fit.value for fit in fits], ddof=1)
    assert 0.5 < spread / np.mean([fit.se for fit in fits]) < 2


def test_what_is_refused():
    generated, reference = pair(60, 0)
    assert "sizes is 61" in error_of(frechet_by_n, generated, reference, [61])
    assert "sizes is 31" in error_of(frechet_of_halves, generated, [31])
    assert "N is 8" in error_of(frechet_by_n, generated, reference, [8])
    assert "empty" in error_of(frechet_by_n, generated, reference, [])
    assert "draws is 0" in error_of(frechet_by_n, generated, reference, [20], draws=0)
    assert "seed is -1" in error_of(frechet_by_n, generated, reference, [20], seed=-1)
    assert "two sizes" in error_of(frechet_at_infinity, frechet_by_n(generated, reference, [20], draws=4))
    assert "three rows" in error_of(frechet_at_infinity, frechet_by_n(generated, reference, [20, 40], draws=1))
    broken = pd.DataFrame({"n": [20, 40, 50], "value": [1, math.nan, 2]})
    assert "not finite" in error_of(frechet_at_infinity, broken)


def rows(weighting, n=500, **changes):
    shared = {"weighting": weighting, "features": "pooled", "n": n, "n_reference": 2048, "weights_sha256": None}
    return pd.DataFrame([{**shared, "metric": metric, **changes} for metric in ("fd_pooled", "recall")])


def test_tables_of_unequal_n_are_refused():
    equal = pd.concat([rows("constant"), rows("debiased"), rows("constant", 800, features="minifaces", metric="fd")])
    assert check_equal_n(equal) is equal
    text = error_of(check_equal_n, pd.concat([rows("constant"), rows("debiased", 1000), rows("p2(k=1,gamma=1)")]))
    assert "500 for constant, p2(k=1,gamma=1); 1000 for debiased" in text
    assert "fd_pooled (pooled) has not one n" in text
    text = error_of(check_equal_n, pd.concat([rows("constant"), rows("debiased", n_reference=10)]))
    assert "10 for debiased; 2048 for constant" in text
    text = error_of(check_equal_n, pd.concat([rows("constant"), rows("debiased", weights_sha256="ab" * 32)]))
    assert "weights_sha256" in text and "abababababab... for debiased" in text and "for constant" in text
    text = error_of(check_equal_n, pd.concat([rows("constant"), rows("constant", 800, variant="lr=0.1")]))
    assert "500 for constant; 800 for constant; lr=0.1" in text
    assert "no column 'n'" in error_of(check_equal_n, rows("constant").drop(columns="n"))
