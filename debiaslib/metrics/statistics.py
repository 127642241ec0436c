"""Statistics over training seeds. Imports no torch.

The unit is the training: noise, images and initial weights of a seed are the same for all arms, so arms are compared
seed by seed. An interval covers another seed on the same data set, and nothing else.
"""

import math

import numpy as np

from ..errors import InputError

HIGHER_IS_BETTER = ("is", "precision", "recall")


def mean_interval(values):
    """(mean, low, high): Student's t interval, 95 %, of `values`, one per independent seed; n - 1 degrees of freedom.

    One value gives (value, nan, nan): it says nothing about the spread. InputError for none and for non-finite ones.
    """
    from scipy.special import stdtrit  # lazy, and not scipy.stats: importing configuration must stay quick

    values = np.asarray(list(values), np.float64)
    if values.ndim != 1 or not values.size or not np.isfinite(values).all():
        raise InputError(f"values are {values.tolist()}; a mean needs at least one number, all finite")
    mean, n = float(values.mean()), len(values)
    if n == 1:
        return mean, math.nan, math.nan
    half = float(stdtrit(n - 1, 0.975) * values.std(ddof=1) / n**0.5)
    return mean, mean - half, mean + half


def paired_ratio(values, baseline):
    """(ratio, low, high) of `values` to `baseline`, paired by seed: exp of the t interval of the mean of log v - log b.

    Both are (n,), above 0, in the same order of seeds. The ratio is the geometric mean of the seeds' ratios. NaN stands
    for a seed that was not trained: its pair is left out. Raises InputError for lengths that differ, values that have
    no logarithm, and no pair.
    """
    return tuple(math.exp(bound) for bound in mean_interval(_log_ratios(values, baseline)))


def paired_test(values, baseline):
    """Two-sided p of the paired t test of log v - log b against 0; arguments as `paired_ratio`. NaN for one seed."""
    from scipy.stats import ttest_1samp

    ratios = _log_ratios(values, baseline)
    return math.nan if len(ratios) < 2 else float(ttest_1samp(ratios, 0).pvalue)


def _log_ratios(values, baseline):
    values, baseline = (np.asarray(list(part), np.float64) for part in (values, baseline))
    if values.shape != baseline.shape or not len(values):
        raise InputError(f"{len(values)} values are to be paired with {len(baseline)}; give one of each for every seed")
    trained = ~(np.isnan(values) | np.isnan(baseline))
    if not trained.any():
        raise InputError(f"no seed has both values of a ratio: {values.tolist()} and {baseline.tolist()}")
    values, baseline = values[trained], baseline[trained]
    if not (np.isfinite(values).all() and np.isfinite(baseline).all() and min(values.min(), baseline.min()) > 0):
        raise InputError(f"a ratio needs values above 0; got {values.tolist()} and {baseline.tolist()}")
    return np.log(values) - np.log(baseline)


def logit_interval(shares, n):
    """(share, low, high): `mean_interval` of the logits of shares in [0, 1], one per seed, transformed back.

    The bounds stay in [0, 1], and the first number is the back-transformed mean. As 0 and 1 have no logit, every share
    becomes (n share + 1/2) / (n + 1), where n is the number that each is a share of. InputError outside [0, 1].
    """
    shares = np.asarray(list(shares), np.float64)
    if not ((shares >= 0) & (shares <= 1)).all():
        raise InputError(f"shares are {shares.tolist()}; they must lie in [0, 1]")
    shares = (n * shares + 0.5) / (n + 1)
    return tuple(1 / (1 + math.exp(-bound)) for bound in mean_interval(np.log(shares / (1 - shares))))


def holm(p_values):
    """Holm's adjusted p-values (n,), in the order given: below alpha where the step-down test rejects (Holm 1979).

    A NaN, of a comparison that could not be tested, stays NaN and is not counted. InputError outside [0, 1].
    """
    p = np.asarray(list(p_values), np.float64)
    if p.ndim != 1 or ((p < 0) | (p > 1)).any():
        raise InputError(f"p_values are {p.tolist()}; they must be numbers in [0, 1]")
    adjusted, order = np.full(len(p), np.nan), np.argsort(p)[: np.isfinite(p).sum()]  # NaN are sorted last
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


def within_margin(interval):
    """Whether a ratio's (ratio, low, high) lies inside 0.9 to 1.1: only this is "no difference".

    An interval that merely contains 1 does not say so. False where the bounds are NaN (one seed).
    """
    _, low, high = interval
    return bool(low >= 0.9 and high <= 1.1)


def check_equal_n(table):
    """Return `table`, rows of `distances.evaluate` of several arms, if each metric has one N for all of them.

    A Frechet distance of N images has a bias of about c/N (Chong and Forsyth 2020). Equal within a metric and its
    features must be n, n_reference, and where they are there extractor, weights_sha256 and dtype. Raises InputError
    that names the arms which differ.
    """
    must = [name for name in ("n", "n_reference", "extractor", "weights_sha256", "dtype") if name in table]
    for (metric, features), rows in table.groupby(["metric", "features"]):
        for column in must:
            if rows[column].nunique(dropna=False) > 1:
                kinds = rows.groupby(column, dropna=False).weighting.unique()
                differ = "; ".join(f"{str(value):.16} for {', '.join(arms)}" for value, arms in kinds.items())
                raise InputError(f"{metric} ({features}) has not one {column}, so arms cannot be compared: {differ}")
    return table
