"""The controls as figures: ratios debiased / constant under every condition, and the sweep of the learning rate.

Imports no torch.
"""

import numpy as np
from matplotlib.ticker import FuncFormatter, NullFormatter

from ..study.controls import BASE, OUTCOMES
from .style import label, legend_below, log_axis, look, new_figure, ordered, style, ticks_at

__all__ = ["control_ratios", "learning_rates"]


@style()
def control_ratios(table):
    """The ratio of every outcome, debiased over constant, a panel an outcome and a line a condition, with intervals.

    table: columns condition, outcome, ratio, low, high, n. Left of 1 the weighting helps; where the interval holds 1,
    the seeds do not tell. Intervals that leave the panel are cut there, with an arrow.
    """
    conditions = list(dict.fromkeys(table.condition))
    shown = [outcome for outcome in OUTCOMES if outcome in set(table.outcome)]
    columns = min(2, len(shown))
    lines = -(-len(shown) // columns)
    figure, axes = new_figure(lines, columns, height=lines * (0.7 + 0.21 * len(conditions)), sharey=True)
    for ax, outcome in zip(axes.flat, shown, strict=False):
        _forest(ax, table[table.outcome == outcome].set_index("condition").reindex(conditions))
        ax.set_title(outcome)
    for ax in axes[:, 0]:
        ax.set_yticks(range(len(conditions)), conditions)
    for ax in axes.flat[len(shown) :]:
        ax.remove()
    axes.flat[0].invert_yaxis()
    for ax in axes[-1]:
        ax.set_xlabel("ratio debiased / constant")
    return figure


def _forest(ax, rows):
    drawn = look("debiased")
    finite = rows[np.isfinite(rows.low) & np.isfinite(rows.high)]
    left = 0.5 * min(rows.ratio.min(), 1.0)
    right = 2.0 * max(rows.ratio.max(), 1.0)
    ax.axvline(1, color="0.45", linewidth=1, zorder=0)
    base = rows.ratio.get(BASE)
    if base is not None:
        ax.axvline(base, color=drawn.colour, linewidth=1, linestyle=":", zorder=0)
    for y, condition in enumerate(rows.index):
        if condition in finite.index:
            low, high = max(rows.low[condition], left), min(rows.high[condition], right)
            ax.plot([low, high], [y, y], color=drawn.colour, linewidth=2, alpha=0.55, solid_capstyle="butt")
            for cut, at, arrow in ((rows.low[condition] < left, left, "<"), (rows.high[condition] > right, right, ">")):
                if cut:
                    ax.plot(at, y, marker=arrow, color=drawn.colour, markersize=5, clip_on=False)
    ax.plot(rows.ratio, range(len(rows)), **{**drawn.line, "linestyle": "none"})
    ax.set_xscale("log")
    ax.set_xlim(left, right)
    wanted = [t for t in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50) if left <= t <= right]
    ax.set_xticks(wanted)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.grid(axis="y", visible=False)


@style()
def learning_rates(table):
    """Every outcome against the learning rate, for both arms: geometric means and 95 % t-intervals over the seeds.

    table: columns weighting, lr, outcome, mean, low, high.
    """
    shown = [outcome for outcome in OUTCOMES if outcome in set(table.outcome)]
    columns = min(3, len(shown))
    lines = -(-len(shown) // columns)
    figure, axes = new_figure(lines, columns, height=0.6 + 2.6 * lines)
    for ax, outcome in zip(axes.flat, shown, strict=False):
        rows = table[table.outcome == outcome]
        for who in ordered(rows.weighting):
            part = rows[rows.weighting == who].sort_values("lr")
            ax.plot(part.lr, part["mean"], **look(who).line, label=label(who))
            bounded = part[np.isfinite(part.low) & np.isfinite(part.high)]
            ax.fill_between(bounded.lr, bounded.low, bounded.high, color=look(who).colour, alpha=0.15, linewidth=0)
        ax.set(title=outcome, xlabel="learning rate")
        low, high = rows["mean"].min(), rows["mean"].max()
        ax.set_ylim(low / 3, high * 3)  # an interval of three seeds may span decades and would flatten the means
        log_axis(ax.yaxis)
        log_axis(ax.xaxis)
        ticks_at(ax.xaxis, rows.lr)
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    for ax in axes.flat[len(shown) :]:
        ax.remove()
    legend_below(figure, axes.flat[: len(shown)])
    return figure
