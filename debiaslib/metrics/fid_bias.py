"""The bias of Frechet distances, shown and removed: against N, and extrapolated to infinitely many images.

A Frechet distance of N images exceeds that of the distributions by about c/N, where c depends on the features and on
the generator (Chong and Forsyth 2020), so two arms compare only at one N (`check_equal_n`). Kernel distances have no
such bias; their error is `metrics.kernel_distance`'s, over disjoint subsets.
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..errors import InputError, check_number
from .check_equal_sample_sizes import check_equal_n
from .distances import frechet_distance

__all__ = ["Extrapolation", "check_equal_n", "frechet_at_infinity", "frechet_by_n", "frechet_of_halves"]


@dataclass(frozen=True)
class Extrapolation:
    """value + slope / N, fitted. `value`: the distance at infinite N; `se`, `slope_se`: the fit's standard errors.

    They are errors of drawing subsets from given images. What other images of the same generator would give, repeated
    runs tell (`metrics.mean_interval`).
    """

    value: float
    se: float
    slope: float
    slope_se: float


def frechet_by_n(generated, reference, sizes, draws=5, seed=0):
    """Frechet distances between random subsets of n generated and n reference features: a DataFrame n, draw, value.

    Features (N, d) and (M, d); every n of `sizes` is more than d and at most min(N, M). Both sets are cut to n, as the
    bias has a part from each. A subset is drawn without replacement, `draws` times for each n.
    """
    generated, reference = np.asarray(generated), np.asarray(reference)
    sizes = _check_sizes(sizes, min(len(generated), len(reference)), draws)

    def pair(shuffle, n):
        return [part[shuffle.permutation(len(part))[:n]] for part in (generated, reference)]

    return _table(sizes, draws, seed, pair)


def frechet_of_halves(features, sizes, draws=5, seed=0):
    """The same between two disjoint random subsets of one set (N, d), n at most N/2: nothing but bias."""
    features = np.asarray(features)
    sizes = _check_sizes(sizes, len(features) // 2, draws)

    def pair(shuffle, n):
        order = shuffle.permutation(len(features))
        return features[order[:n]], features[order[n : 2 * n]]

    return _table(sizes, draws, seed, pair)


def _check_sizes(sizes, largest, draws):
    check_number("draws", draws, minimum=1, integer=True)
    sizes = list(sizes)
    if not sizes:
        raise InputError("sizes is empty; it must list at least one number of images")
    return [check_number("sizes", n, minimum=2, maximum=largest, integer=True) for n in sizes]


def _table(sizes, draws, seed, pair):
    check_number("seed", seed, minimum=0, integer=True)
    shuffle = np.random.default_rng(seed)
    rows = [(int(n), draw, frechet_distance(*pair(shuffle, n))) for n in sizes for draw in range(draws)]
    return pd.DataFrame(rows, columns=["n", "draw", "value"])


def frechet_at_infinity(table):
    """The `Extrapolation` of the rows of `frechet_by_n`: least squares of value against 1/n (Chong and Forsyth 2020).

    Linear only where n is well above d: take sizes from several times d. Needs three rows and two sizes; raises
    InputError otherwise.
    """
    n, value = (np.asarray(table[name], np.float64) for name in ("n", "value"))
    if len(n) < 3 or len(set(n)) < 2:
        raise InputError(f"{len(n)} rows of {len(set(n))} sizes; an extrapolation needs three rows and two sizes")
    if not (np.isfinite(value).all() and (n > 0).all()):
        raise InputError("the table holds values that are not finite, or sizes that are not positive")
    x = 1 / n
    spread = ((x - x.mean()) ** 2).sum()
    slope = ((x - x.mean()) * value).sum() / spread
    intercept = value.mean() - slope * x.mean()
    variance = ((value - intercept - slope * x) ** 2).sum() / (len(n) - 2)
    se = math.sqrt(variance * (1 / len(n) + x.mean() ** 2 / spread))
    return Extrapolation(float(intercept), se, float(slope), math.sqrt(variance / spread))
