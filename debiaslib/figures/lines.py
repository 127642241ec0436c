"""What several figures draw: means with intervals over training seeds, as curves and as dots. Imports no torch.

Where a table has several training seeds, the mean is over them and the interval Student's t at 95 %; with one seed the
interval is the 95 % one from the table's own standard error, if it has one. Both are of the logarithm on a logarithmic
axis, and of the log odds for a share.
"""

import numpy as np
import pandas as pd
from scipy.special import expit, logit, stdtrit

from .style import label, log_axis, look, ordered

TIMESTEP = "timestep $t$ (0-based)"
_SCALES = {  # name: transform, its inverse, and its derivative
    "linear": (lambda v: v, lambda v: v, lambda v: 1.0),
    "log": (np.log, np.exp, lambda v: 1 / v),
    "logit": (logit, expit, lambda v: 1 / (v * (1 - v))),
}


def summarise(table, by, value="value", se="se", scale="linear"):
    """DataFrame (by, mean, low, high, seeds): mean over seeds, 95 % interval (NaN for one seed without standard error).

    scale: "linear", "log" (every value must be positive) or "logit" (every value must lie between 0 and 1).
    """
    transform, inverse, derivative = _SCALES[scale]
    spread = pd.to_numeric(table[se], errors="coerce") if se in table else pd.Series(np.nan, table.index)
    work = table[by].assign(value=transform(table[value]), se=spread * derivative(table[value]))
    groups = work.groupby(by, sort=True)
    found = groups["value"].agg(mean="mean", sd="std", seeds="count").join(groups["se"].first()).reset_index()
    of_seeds = stdtrit(np.maximum(found.seeds - 1, 1), 0.975) * found.sd / np.sqrt(found.seeds)
    half = np.where(found.seeds > 1, of_seeds, 1.96 * found.se)
    found["low"], found["high"] = found["mean"] - half, found["mean"] + half
    found[["mean", "low", "high"]] = inverse(found[["mean", "low", "high"]])
    return found[[*by, "mean", "low", "high", "seeds"]]


def curve(ax, rows, x, who, **more):
    """Draw what `summarise` gave for one weighting: its line, and its band where there is one."""
    drawn = look(who)
    ax.plot(rows[x], rows["mean"], **{**drawn.line, "label": label(who), **more})
    if rows["low"].notna().any():
        ax.fill_between(rows[x], rows["low"], rows["high"], color=drawn.colour, alpha=0.18, linewidth=0)


def dense(ax, x, y, who, i):
    """A line of many points: markers now and then, at other places for each weighting, so that none hides another."""
    every = max(1, len(x) // 6)
    ax.plot(x, y, **look(who).line, label=label(who), markevery=(int((0.15 + 0.13 * i) * every) % every, every))


def dots(ax, found, groups, column, who="weighting"):
    """Draw what `summarise` gave as dots with intervals: a line for each group and weighting, values to the right.

    groups: the values of `column` from above to below. Weightings have the same place in every group.
    """
    everyone = ordered(found[who])
    step = min(0.16, 0.72 / len(everyone))
    for i, name in enumerate(everyone):
        rows, drawn = found[found[who] == name], look(name)
        y = rows[column].map(list(groups).index) + step * (i - (len(everyone) - 1) / 2)
        ax.hlines(y, rows.low, rows.high, color=drawn.colour, linewidth=1.6, alpha=0.7)
        ax.plot(rows["mean"], y, **{**drawn.line, "linestyle": "none"}, label=label(name))
    ax.set_ylim(len(groups) - 0.5, -0.5)
    ax.set_yticks(range(len(groups)))
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    for between in range(1, len(groups)):
        ax.axhline(between - 0.5, color="0.9", linewidth=0.8, zorder=0)


def few(values, wanted=3):
    """Of sorted distinct positive numbers the least, the greatest, and those nearest to even steps of a factor."""
    values = sorted({int(v) for v in values})
    places = np.geomspace(values[0], values[-1], min(wanted, len(values)))
    return sorted({min(values, key=lambda v: abs(np.log(v / place))) for place in places})


def real_line(ax, rows, scale, upright=False):
    """The real images' value as a grey line, with 1.96 standard errors where it has them; rows: value, se."""
    value, se = rows["value"].mean(), pd.to_numeric(rows["se"], errors="coerce").mean()
    drawn, positive = look("real"), scale != "linear"
    line, span = (ax.axvline, ax.axvspan) if upright else (ax.axhline, ax.axhspan)
    if not positive or value > 0:  # an unbiased estimate of a distance near 0 can fall below it
        line(value, color=drawn.colour, linestyle=drawn.dashes, linewidth=1.5, zorder=1, label=label("real"))
    if se > 0 and (not positive or value > 1.96 * se):
        span(value - 1.96 * se, value + 1.96 * se, color=drawn.colour, alpha=0.15, linewidth=0, zorder=0)


def limit_to(axis, rows, factor=3):
    """Make an axis logarithmic and end it near the means: an interval of few seeds may span decades."""
    means = rows["mean"]
    getattr(axis.axes, f"set_{axis.axis_name}lim")(means.min() / factor, means.max() * factor)
    log_axis(axis)
