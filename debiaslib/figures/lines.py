"""What several figures share: means with intervals over training seeds as curves and dots, and words of captions.

Intervals are Student's t at 95 % over the training seeds; of one seed, 1.96 of the table's own standard error. On a
logarithmic axis both are of the logarithm. Imports no torch.
"""

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from .style import label, look, ordered

TIMESTEP = "timestep $t$ (0-based)"


def summarise(table, by, value="value", se="se", scale="linear"):
    """DataFrame (by, mean, low, high, seeds): mean over seeds, 95 % interval (NaN for one seed without standard error).

    scale: "linear", or "log", for which every value must be positive.
    """
    log, values = scale == "log", table[value]
    errors = pd.to_numeric(table[se], errors="coerce") if se in table else pd.Series(np.nan, table.index)
    work = table[by].assign(value=np.log(values) if log else values, se=errors / values if log else errors)
    groups = work.groupby(by, sort=True)
    found = groups["value"].agg(mean="mean", sd="std", seeds="count").join(groups["se"].first()).reset_index()
    of_seeds = stdtrit(np.maximum(found.seeds - 1, 1), 0.975) * found.sd / np.sqrt(found.seeds)
    half = np.where(found.seeds > 1, of_seeds, 1.96 * found.se)
    ends = pd.DataFrame({"mean": found["mean"], "low": found["mean"] - half, "high": found["mean"] + half})
    return pd.concat([found[by], np.exp(ends) if log else ends, found.seeds], axis=1)


def curve(ax, rows, x, who, **more):
    """Draw rows with x, mean, low and high of one weighting: its line, and its band where there is one."""
    drawn = look(who)
    ax.plot(rows[x], rows["mean"], **{**drawn.line, "label": label(who), **more})
    band(ax, rows[x], rows["low"], rows["high"], drawn.colour)


def curves(ax, rows, x, who="weighting"):
    """`curve` for each weighting in the column `who`."""
    for name in ordered(rows[who]):
        curve(ax, rows[rows[who] == name], x, name)


def band(ax, x, low, high, colour):
    """Shade between low and high, where there are such; at a single x a band has no width, and a bar stands there."""
    if pd.notna(low).any():
        shade = ax.fill_between if len(x) > 1 else ax.vlines
        shade(x, low, high, color=colour, **({"alpha": 0.18, "lw": 0} if len(x) > 1 else {"alpha": 0.7, "lw": 1.6}))


def dots(ax, found, groups, column):
    """Draw what `summarise` gave as dots with intervals: a line for each group and weighting, values to the right.

    groups: the values of `column` from above to below. Weightings have the same place in every group.
    """
    groups, everyone = list(groups), ordered(found.weighting)
    step = min(0.16, 0.72 / len(everyone))
    for i, name in enumerate(everyone):
        rows, drawn = found[found.weighting == name], look(name)
        y = rows[column].map(groups.index) + step * (i - (len(everyone) - 1) / 2)
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
    drawn, lowest = look("real"), 0 if scale == "log" else -np.inf  # an unbiased estimate can fall below 0
    line, span = (ax.axvline, ax.axvspan) if upright else (ax.axhline, ax.axhspan)
    if value > lowest:
        line(value, color=drawn.colour, linestyle=drawn.dashes, linewidth=1.5, zorder=1, label=label("real"))
    if value - 1.96 * se > lowest:
        span(value - 1.96 * se, value + 1.96 * se, color=drawn.colour, alpha=0.15, linewidth=0, zorder=0)


# Words of captions


def preferred(names, wanted=("constant", "debiased")):
    """Those weightings that are wanted (by name, whatever their arguments), or else the first two; in order."""
    names = ordered(names)
    return [name for name in names if name.partition("(")[0] in wanted] or names[:2]


def listed(names):
    """ "constant, debiased, P2" """
    return ", ".join(label(name) for name in ordered(names))


def seed_list(seeds):
    """ "seed 0", "seeds 0, 1, 2", "no seed" """
    seeds = sorted({int(seed) for seed in seeds})
    return f"seed{'s' * (len(seeds) != 1)} {', '.join(map(str, seeds))}" if seeds else "no seed"


def number_range(counts):
    """ "500", "500 to 1,000", "?" of a column of counts."""
    values = sorted(set(counts.dropna().astype(int)))
    return " to ".join(f"{n:,}" for n in dict.fromkeys(values[:1] + values[-1:])) or "?"


def spread(table, alone, who="weighting"):
    """The caption's words on what means and intervals are over; `alone`: those on a single training seed's interval.

    Weightings with fewer training seeds than others are named.
    """
    counts = table.groupby(who).seed.nunique()
    if counts.max() <= 1:
        return f"{seed_list(table.seed.dropna())}{alone}"
    some = [f"{label(one)} ({counts[one]})" for one in ordered(counts.index[counts < counts.max()])]
    fewer = f", but for those with fewer seeds: {', '.join(some)}" if some else ""
    seeds = seed_list(table.seed.dropna())
    return f"mean (geometric on a logarithmic axis) over {seeds}; intervals: 95 % t-intervals over them{fewer}"
