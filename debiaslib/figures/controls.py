"""Figures of notebook 07: every outcome by learning rate, and debiased / constant under each control. No torch."""

import numpy as np
from matplotlib.ticker import FuncFormatter, NullFormatter

from ..study.controls import BASE, OUTCOMES
from .lines import curves, number_range, plain_rows
from .registry import figure
from .style import log_axis, look, panel_grid, ticks_at

NOTEBOOK = "07_controls"
_PLAIN = FuncFormatter(lambda value, _: f"{value:g}")
_ONE = "one training seed, no error bars."
_GROUPS = {  # heading: what the names of its conditions contain
    "baseline": (BASE,),
    "learning rate": ("learning rate", "lr "),
    "clipping and size of the weight": ("max_grad_norm", "normalize_weight", "timestep_sampling", "max_weight"),
    "target": ("prediction_type",),
    "network": ("learned_variance", "no EMA"),
    "other": ("",),
}
_WORDS = {
    BASE: "as chosen for all",
    "each at its best learning rate": "each at its best",
    "against constant with ": "constant: ",
    "prediction_type sample": r"predicts $x_0$",
    "prediction_type v_prediction": "predicts $v$",
    "max_grad_norm ": "clipped at ",
    "normalize_weight true": "mean 1",
    "timestep_sampling weight": "weight as density",
    "learned_variance true": "variance learned",
    "weights of the last step, no EMA": "last step, no EMA",
    "lr ": "both at ",
}


def load_learning_rates(tables):
    table = tables.frame(*tables.find("tables/learning_rates.csv"), "weighting lr outcome mean low high n")
    spread = f"geometric mean over {number_range(table.n)} training seeds; bands: 95 % t-intervals of its logarithm, "
    return {"spread": f"{spread}cut at the panel." if table.n.max() > 1 else _ONE}, table


def _measured(table):
    return [outcome for outcome in OUTCOMES if outcome in set(table.outcome)]


@figure("The outcomes by learning rate", NOTEBOOK, "tables/learning_rates.csv", load_learning_rates)
def learning_rates(table):
    """Every outcome against the learning rate, for constant and debiased; all else is equal. Lines: {spread}"""

    def paint(ax, outcome):
        rows = table[table.outcome == outcome].replace([np.inf, -np.inf], np.nan).sort_values("lr")
        curves(ax, rows, "lr")
        ax.set(title=outcome, xlabel="learning rate")
        # An interval of three seeds may span decades and would flatten the means.
        ax.set_ylim(rows["mean"].min() / 3, rows["mean"].max() * 3)
        log_axis(ax.yaxis)
        log_axis(ax.xaxis)
        ticks_at(ax.xaxis, rows.lr)
        ax.xaxis.set_major_formatter(_PLAIN)

    return panel_grid(_measured(table), paint, height=2.2)


def load_controls(tables):
    table = tables.frame(*tables.find("tables/controls.csv"), "condition outcome ratio low high n")
    spread = f"geometric mean over {number_range(table.n)} training seeds; bars: 95 % t-intervals over them, "
    return {"spread": f"{spread}an arrow where one leaves the panel." if table.n.max() > 1 else _ONE}, table


@figure("How much of the gain is the weighting?", NOTEBOOK, "tables/controls.csv", load_controls)
def control_ratios(table):
    """Ratio debiased / constant of every outcome (lower is better) under every control, paired by training seed;
    dotted: the ratio of the baseline. Squares: {spread} Each arm's best learning rate is chosen on the same seeds.
    """
    lines = grouped(dict.fromkeys(table.condition))
    places = {condition: y for y, (condition, _) in enumerate(lines) if condition}

    def paint(ax, outcome):
        _forest(ax, table[table.outcome == outcome].set_index("condition"), places)
        ax.set_title(outcome)
        if ax.get_subplotspec().is_first_col():
            ax.set_yticks(range(len(lines)), [text for _, text in lines])
            for (condition, _), text in zip(lines, ax.get_yticklabels(), strict=True):
                text.set_fontweight("normal" if condition else "bold")
            ax.set_ylim(len(lines) - 0.5, -0.5)
        if ax.get_subplotspec().is_last_row():
            ax.set_xlabel("debiased / constant")

    return panel_grid(_measured(table), paint, height=0.55 + 0.165 * len(lines), base=0, sharey=True)


def grouped(conditions):
    """[(condition, its words)], below a line ("", heading) for each group that has any."""
    groups = {heading: [] for heading in _GROUPS}
    for condition in conditions:
        heading = next(h for h, parts in _GROUPS.items() if any(part in condition for part in parts))
        groups[heading].append((condition, _in_words(condition)))
    return [line for heading, found in groups.items() if found for line in [("", heading), *found]]


def _in_words(condition):
    for code, words in _WORDS.items():
        condition = condition.replace(code, words)
    return condition


def _forest(ax, rows, places):
    drawn = look("debiased")
    left, right = 0.5 * min(rows.ratio.min(), 1.0), 2.0 * max(rows.ratio.max(), 1.0)
    ax.axvline(1, color="0.45", linewidth=1, zorder=0)
    if BASE in rows.index:
        ax.axvline(rows.ratio[BASE], color=drawn.colour, linewidth=1, linestyle=":", zorder=0)
    for condition, row in rows[np.isfinite(rows.low) & np.isfinite(rows.high)].iterrows():
        y, ends = places[condition], [max(row.low, left), min(row.high, right)]
        ax.plot(ends, [y, y], color=drawn.colour, linewidth=2, alpha=0.55, solid_capstyle="butt")
        for cut, at, arrow in ((row.low < left, left, "<"), (row.high > right, right, ">")):
            if cut:
                ax.plot(at, y, marker=arrow, color=drawn.colour, markersize=5, clip_on=False)
    ax.plot(rows.ratio, [places[condition] for condition in rows.index], **{**drawn.line, "linestyle": "none"})
    ax.set_xscale("log")
    ax.set_xlim(left, right)
    ax.set_xticks([t for t in (0.01, 0.1, 0.3, 1, 3, 10, 30) if left <= t <= right])
    ax.xaxis.set_major_formatter(_PLAIN)
    ax.xaxis.set_minor_formatter(NullFormatter())
    plain_rows(ax)
