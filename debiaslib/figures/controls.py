"""Figures of notebook 07: every outcome by learning rate, and debiased / constant under each control. No torch."""

import numpy as np

from ..study.controls import BASE, BEST, OUTCOMES
from .lines import curves, dots, listed, number_range
from .registry import figure
from .style import log_axis, look, panel_grid, ticks_at

NOTEBOOK, RATES, CONTROLS = "07_controls", "tables/learning_rates.csv", "tables/controls.csv"
_WORDS = {
    "each at its best learning rate": "each at its best",
    "against ": "",
    " with ": ": ",
    "prediction_type sample": r"predicts $x_0$",
    "prediction_type v_prediction": "predicts $v$",
    "max_grad_norm ": "clipped at ",
    "normalize_weight true": "mean 1",
    "timestep_sampling weight": "weight as density",
    "learned_variance true": "variance learned",
    "weights of the last step, no EMA": "last step, no EMA",
    "lr ": "rate ",
}


def load_learning_rates(tables):
    table = tables.read(*tables.find(RATES), "weighting lr outcome mean low high n")
    facts = _facts(table, "bands and bars: 95 % t-intervals of its logarithm")
    return {**facts, "weightings": listed(table.weighting.unique())}, table


def load_controls(tables):
    table = tables.read(*tables.find(CONTROLS), "condition outcome ratio low high n")
    best = " Each arm's best learning rate is chosen on the same seeds."
    best = best if (table.condition == BEST).any() else ""
    return {**_facts(table, "bars: 95 % t-intervals over them"), "best": best}, table


def _facts(table, drawn):
    spread = f"geometric mean over {number_range(table.n)} training seeds; {drawn}, cut at the panel."
    return {"spread": spread if table.n.max() > 1 else "one training seed, no error bars."}


@figure("The outcomes by learning rate", NOTEBOOK, RATES, load_learning_rates)
def learning_rates(table):
    """Every outcome against the learning rate, for {weightings}; all else is equal. Lines: {spread}"""

    def paint(ax, outcome):
        rows = table[table.outcome == outcome].replace([np.inf, -np.inf], np.nan).sort_values("lr")
        curves(ax, rows, "lr")
        ax.set(title=outcome, xlabel="learning rate")
        # An interval of three seeds may span decades and would flatten the means.
        ax.set_ylim(rows["mean"].min() / 3, rows["mean"].max() * 3)
        log_axis(ax.yaxis)
        log_axis(ax.xaxis)
        ticks_at(ax.xaxis, rows.lr)

    return panel_grid(list(filter(set(table.outcome).__contains__, OUTCOMES)), paint, height=2.2)


@figure("How much of the gain is the weighting?", NOTEBOOK, CONTROLS, load_controls)
def control_ratios(table):
    """Ratio debiased / constant, or debiased / the arm that a line names, of outcomes that are above 0 in all trainings
    (lower is better), paired by seed; dotted: the ratio of the baseline. Squares: {spread}{best}
    """
    conditions = words = list(dict.fromkeys(table.condition))
    for code, plain in _WORDS.items():
        words = [condition.replace(code, plain) for condition in words]

    def paint(ax, outcome):
        rows = table[table.outcome == outcome].rename(columns={"ratio": "mean"}).assign(weighting="debiased")
        ax.axvline(1, color="0.45", linewidth=1, zorder=0)
        for ratio in rows["mean"][rows.condition == BASE]:
            ax.axvline(ratio, color=look("debiased").colour, linewidth=1, linestyle=":", zorder=0)
        dots(ax, rows, conditions, "condition")
        for drawn in ax.get_lines():
            drawn.set_label("")  # one colour needs no legend
        # An interval of three seeds may span decades and would flatten the ratios.
        ax.set(title=outcome, xlim=(0.5 * min(rows["mean"].min(), 1), 2 * max(rows["mean"].max(), 1)))
        log_axis(ax.xaxis)
        if ax.get_subplotspec().is_first_col():
            ax.set_yticks(range(len(conditions)), words)
        if ax.get_subplotspec().is_last_row():
            ax.set_xlabel("debiased / the other arm")

    shown = [outcome for outcome in OUTCOMES if outcome in set(table.outcome)]
    return panel_grid(shown, paint, height=0.55 + 0.165 * len(conditions), base=0.3, sharey=True)
