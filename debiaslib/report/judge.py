"""The rule by which a claim is judged: a ratio's interval, and what is said of it. Imports no torch.

A claim is about the ratio of debiased to another arm, paired by training seed:

    holds          the 95 % interval lies on the claimed side of 1
    refuted        it lies on the other side
    no difference  it lies within 0.9 to 1.1
    open           none of these
    one seed: yes, one seed: no    a single seed has no interval; it can show what happens, not what usually happens
"""

import math

from ..metrics.statistics import mean_interval, paired_ratio, within_margin

__all__ = ["COLUMNS", "difference_claim", "paired_claim", "plain_claim", "ratio_text", "verdict_of"]

COLUMNS = ["claim", "what would refute it", "found here", "verdict"]


def verdict_of(interval, claimed="below"):
    """The verdict on a paired ratio (ratio, low, high) that is claimed to lie "below" or "above" 1."""
    ratio, low, high = interval if claimed == "below" else tuple(1 / bound for bound in _turned(interval))
    if math.isnan(low):
        return "one seed: yes" if ratio < 1 else "one seed: no"
    if within_margin(interval):
        return "no difference"
    return "holds" if high < 1 else "refuted" if low > 1 else "open"


def _turned(interval):
    ratio, low, high = interval
    return ratio, high, low


def ratio_text(interval, n):
    """A ratio as text: `0.14 [0.10, 0.19], 6 seeds`; without brackets for one seed."""
    ratio, low, high = interval
    return f"{ratio:.3g} (one seed)" if math.isnan(low) else f"{ratio:.3g} [{low:.3g}, {high:.3g}], {n} seeds"


def paired_claim(claim, refuted_by, what, ours, base, claimed="below"):
    """A row on a paired ratio; None where an arm was not measured or a value has no logarithm."""
    seeds = ours.index.intersection(base.index)
    if not len(seeds) or not (ours[seeds] > 0).all() or not (base[seeds] > 0).all():
        return None
    interval = paired_ratio(ours[seeds], base[seeds])
    found = f"{what}: {ratio_text(interval, len(seeds))}"
    return dict(zip(COLUMNS, (claim, refuted_by, found, verdict_of(interval, claimed)), strict=True))


def difference_claim(claim, refuted_by, what, ours, base):
    """A row on the paired difference ours - base, claimed below 0: for unbiased distances, which may be 0 or less.

    None where no seed has both.
    """
    seeds = ours.index.intersection(base.index)
    if not len(seeds):
        return None
    mean, low, high = mean_interval(ours[seeds] - base[seeds])
    if math.isnan(low):
        verdict, interval = "one seed: yes" if mean < 0 else "one seed: no", "one seed"
    else:
        verdict = "holds" if high < 0 else "refuted" if low > 0 else "open"
        interval = f"difference [{low:.3g}, {high:.3g}], {len(seeds)} seeds"
    found = f"{what}: {ours[seeds].mean():.3g} against {base[seeds].mean():.3g} ({interval})"
    return dict(zip(COLUMNS, (claim, refuted_by, found, verdict), strict=True))


def plain_claim(claim, refuted_by, found, holds):
    """A row on a claim that holds or does not, without a ratio."""
    return dict(zip(COLUMNS, (claim, refuted_by, found, "holds" if holds else "refuted"), strict=True))
