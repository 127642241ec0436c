"""Intervals over training seeds: Student's t of a mean, and of paired ratios. Imports no torch.

The unit is the training: noise, images and initial weights of a seed are the same for all arms, so arms are compared
seed by seed. What an interval covers is another seed on the same data set; nothing else.
"""

import math

import numpy as np

from ..errors import InputError, check_number

__all__ = ["HIGHER_IS_BETTER", "mean_interval", "paired_ratio"]

HIGHER_IS_BETTER = ("is", "precision", "recall")


def mean_interval(values, level=0.95):
    """(mean, low, high): Student's t interval of `values`, one per independent seed; n - 1 degrees of freedom.

    One value gives (value, nan, nan): it says nothing about the spread. InputError for none and for non-finite ones.
    """
    from scipy.special import stdtrit  # lazy: importing configuration must stay quick

    check_number("level", level, above=0, below=1)
    values = np.asarray(list(values), np.float64)
    if values.ndim != 1 or not values.size or not np.isfinite(values).all():
        raise InputError(f"values are {values.tolist()}; a mean needs at least one number, all finite")
    mean, n = float(values.mean()), len(values)
    if n == 1:
        return mean, math.nan, math.nan
    half = float(stdtrit(n - 1, (1 + level) / 2) * values.std(ddof=1) / n**0.5)
    return mean, mean - half, mean + half


def paired_ratio(values, baseline, level=0.95):
    """(ratio, low, high) of `values` to `baseline`, paired by seed: exp of the t interval of the mean of log v - log b.

    Both are (n,), above 0, in the same order of seeds. The ratio is the geometric mean of the seeds' ratios. NaN stands
    for a seed that was not trained: its pair is left out. Raises InputError for lengths that differ, values that have
    no logarithm, and no pair.
    """
    values, baseline = (np.asarray(list(part), np.float64) for part in (values, baseline))
    if values.shape != baseline.shape or not len(values):
        raise InputError(f"{len(values)} values are to be paired with {len(baseline)}; give one of each for every seed")
    trained = ~(np.isnan(values) | np.isnan(baseline))
    if not trained.any():
        raise InputError(f"no seed has both values of a ratio: {values.tolist()} and {baseline.tolist()}")
    values, baseline = values[trained], baseline[trained]
    if not (np.isfinite(values).all() and np.isfinite(baseline).all() and min(values.min(), baseline.min()) > 0):
        raise InputError(f"a ratio needs values above 0; got {values.tolist()} and {baseline.tolist()}")
    return tuple(math.exp(bound) for bound in mean_interval(np.log(values) - np.log(baseline), level))
