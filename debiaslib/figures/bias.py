"""The figure of notebook 03 on the parts of the excess (`study/bias.py`): a bias, or a variance? Imports no torch."""

import numpy as np

from .lines import TIMESTEP, band, listed, number_range, preferred
from .mse_curves import NOTEBOOK
from .registry import NothingToDraw, figure
from .style import label, log_axis, look, ordered, panel_grid

TABLE = "tables/bias.csv"
_PARTS = {"excess_common": "common part", "excess_between": "variance"}


def load_bias(tables):
    """(facts, rows of bias.csv for two weightings and training images, whose optimum is known everywhere)."""
    table = tables.frame(*tables.find(TABLE), "quantity split model t frequency weight value se n")
    table = table[(table.split == "train") & table.quantity.isin(_PARTS)]
    shown = preferred(table.model.unique())
    return {"weightings": listed(shown), "n": number_range(table.n)}, table[table.model.isin(shown)]


@figure("Is the excess a bias or a variance?", NOTEBOOK, TABLE, load_bias)
def bias_or_variance(rows):
    """Excess E|x0_hat - E[x0|x_t]|^2 = the part that the networks of all training seeds have in common (solid) plus its
    variance over them (broken), on {n} training images, for {weightings}. Below: of the mean colour alone, as
    a part of the above. Bands: 95 % intervals over the images, for these networks. Both parts are estimated without
    bias; where an estimate is below zero there is no point.
    """
    if rows.empty:
        raise NothingToDraw("One training seed: whether the excess is a bias or a variance takes two or more.")
    panels = {"All pixels": rows[rows.frequency.isna()], "Mean colour alone": rows[rows.frequency == 0]}

    def paint(ax, title):
        part = panels[title]
        for who in ordered(part.model):
            for quantity in _PARTS:
                _part(ax, part[(part.model == who) & (part.quantity == quantity)], who, quantity)
        log_axis(ax.yaxis)
        ax.margins(x=0.02)
        ax.set(title=title, xlabel=TIMESTEP, ylabel="part of the excess\n(per pixel, $[-1,1]^2$)")
        ax.label_outer()

    return panel_grid([*panels], paint, height=2.9, base=0, columns=1, sharex=True)


def _part(ax, rows, who, quantity):
    # An unbiased estimate of a square may fall below zero, where a logarithm ends.
    rows, drawn = rows[rows["value"] > 0].sort_values("t"), look(who)
    value, half = rows["value"] * rows.weight, 1.96 * rows.se * rows.weight
    line = {**drawn.line, "linestyle": "-", "label": f"{label(who)}: {_PARTS[quantity]}"}
    if quantity == "excess_between":
        line |= {"linestyle": (0, (2, 1.5)), "markerfacecolor": "white", "markeredgecolor": drawn.colour}
    ax.plot(rows.t, value, **line)
    # A band that reaches zero ends a decade below.
    band(ax, rows.t, np.maximum(value - half, value / 10), value + half, drawn.colour)
