"""Colour shift of samples: its distances, and the means and spreads behind them, by sampling steps. No torch."""

import pandas as pd

from .curves import curve, real_line, summarise
from .style import legend_below, log_axis, new_figure, note, ordered, style, ticks_at

__all__ = ["DISTANCES", "colour_by_steps", "colour_spread"]

DISTANCES = {  # column `metric`: panel title, axis
    "colour_w1": ("Mean colour: Wasserstein distance", r"$W_1$ ($\Delta E^*_{ab}$, lower is better)"),
    "layout_energy": ("4x4 layout: energy distance", r"energy distance ($\Delta E^*_{ab}$, lower is better)"),
}
_CHANNELS = ("red", "green", "blue")
_STATISTICS = {"mean": "mean over images", "spread": "standard deviation\nover images"}


@style()
def colour_by_steps(table, real=None):
    """Distances between the colours of samples and data against the number of sampling steps, one panel each.

    `table`: rows of distances-*.csv made by fully trained networks; `real`: rows of distances-real.csv, or None.
    Bands are t-intervals over seeds; W1 of the real images is the floor that their finite number leaves.
    """
    shown = [metric for metric in DISTANCES if (table.metric == metric).any()]
    if not shown:
        return note(f"Not measured in this experiment: {', '.join(DISTANCES)}.")
    figure, [axes] = new_figure(1, len(shown), height=4.0)
    for ax, metric in zip(axes, shown, strict=True):
        title, axis = DISTANCES[metric]
        positive = bool((table[table.metric == metric]["value"] > 0).all())  # an unbiased estimate may fall below 0
        _panel(ax, table, real, metric, logarithmic=positive)
        ax.set(title=title, xlabel="sampling steps", ylabel=axis)
    legend_below(figure, axes)
    return figure


@style()
def colour_spread(table, real=None):
    """Mean (above) and spread (below) of the samples' mean colour by channel, against the number of sampling steps.

    Arguments as of `colour_by_steps`. The grey line is the data's own; samples below it in the lower row are less
    varied in colour than the data.
    """
    shown = [kind for kind in _STATISTICS if (table.metric == f"{kind}_red").any()]
    if not shown:
        return note("Not measured in this experiment: the mean colours of samples.")
    figure, axes = new_figure(len(shown), 3, height=0.6 + 2.7 * len(shown), sharex=True, sharey="row")
    for line, kind in zip(axes, shown, strict=True):
        for ax, channel in zip(line, _CHANNELS, strict=True):
            _panel(ax, table, real, f"{kind}_{channel}", logarithmic=False)
        line[0].set_ylabel(f"{_STATISTICS[kind]}, $[-1, 1]$")
    for ax, channel in zip(axes[0], _CHANNELS, strict=True):
        ax.set_title(channel.capitalize())
    for ax in axes[-1]:
        ax.set_xlabel("sampling steps")
    legend_below(figure, axes)
    return figure


def _panel(ax, table, real, metric, logarithmic):
    rows = table[table.metric == metric]
    rows = rows.assign(se=pd.to_numeric(rows["se"], errors="coerce"))  # all None where a metric has no error
    found = summarise(rows, ["weighting", "steps"], log=logarithmic)
    for who in ordered(found.weighting):
        curve(ax, found[found.weighting == who], "steps", who)
    if real is not None and (real.metric == metric).any():
        real_line(ax, real[real.metric == metric], logarithmic)
    if logarithmic:
        log_axis(ax.yaxis)
    log_axis(ax.xaxis)
    ticks_at(ax.xaxis, rows.steps, limit=8)
