"""Figures of notebook 03 on the error: by timestep, over the optimum, and its excess as bias and variance. No torch."""

import numpy as np

from .lines import TIMESTEP, band, curves, listed, number_range, preferred, spread, summarise
from .registry import NothingToDraw, figure
from .style import label, legend_below, log_axis, look, new_figure, ordered, panel_grid

NOTEBOOK, TABLE, BIAS = "03_mse_step_curves", "tables/mse.csv", "tables/bias.csv"
QUANTITIES = {
    "epsilon_mse": r"MSE of $\hat\epsilon$ (per pixel)",
    "x0_mse": r"MSE of $\hat x_0$ (per pixel, $[-1,1]^2$)",
    "colour_mse": r"MSE of the mean colour ($[-1,1]^2$)",
    "excess": r"$|\hat x_0 - E[x_0|x_t]|^2$",
    "colour_excess": r"$|\hat x_0 - E[x_0|x_t]|^2$",
}
_PARTS = {"excess_common": "common part", "excess_between": "variance"}
FLOOR = r"floor $E\,\mathrm{Var}(x_0|x_t)$"


def load_errors(tables):
    """(facts, rows of mse.csv on training images)."""
    columns = "split seed model t quantity mean se n difference difference_se"
    table = tables.read(*tables.find(TABLE), columns)
    table = table[table.split == "train"]
    trained = table[~table.model.isin(["optimum", "initial"])]
    over = spread(trained, "; intervals: 95 % over the images, without the spread between seeds", "model")
    ratio = ", and its ratio to that of the first weighting, which sees the same images, timesteps and noise"
    ratio = ratio if trained.model.nunique() > 1 else ""
    return {"n": int(table.n.max()), "over": over, "ratio": ratio}, table


@figure("Error of epsilon by timestep", NOTEBOOK, TABLE, load_errors)
def mse_epsilon(table):
    """Mean squared error of epsilon_hat by timestep (paper, figure 4){ratio}. {INITIAL} {BANDS}"""
    return error_and_ratio(table[table.quantity == "epsilon_mse"])


@figure("Error of x0 by timestep", NOTEBOOK, TABLE, load_errors)
def mse_x0(table):
    """Mean squared error of the one-step estimate x0_hat by timestep, not clipped (paper, figure 4){ratio}. {INITIAL}
    {BANDS}
    """
    return error_and_ratio(table[table.quantity == "x0_mse"])


def error_and_ratio(rows):
    """Error by timestep, and below it the ratio to the first weighting's error, paired, where there are several.

    rows: of one quantity; their `difference` is from that weighting (constant, where it is there).
    """
    trained = rows[~rows.model.isin(["optimum", "initial"]) & rows.difference.notna()]
    compared = trained[trained.groupby("model").difference.transform("any")]
    if compared.empty:
        drawn, axes = new_figure(height=3.8)
    else:
        drawn, axes = new_figure(2, 1, height=5.8, sharex=True, height_ratios=(3, 2))
        ax, base = axes[1, 0], (set(trained.model) - set(compared.model)).pop()
        baseline = compared["mean"] - compared.difference
        ratios = compared.assign(ratio=compared["mean"] / baseline, ratio_se=compared.difference_se / baseline)
        ax.axhline(1, color=look(base).colour, linestyle=look(base).dashes, linewidth=1.4)
        curves(ax, summarise(ratios, ["model", "t"], value="ratio", se="ratio_se", scale="log"), "t", "model")
        log_axis(ax.yaxis)
        ax.set(xlabel=TIMESTEP, ylabel=f"MSE / MSE of {label(base)}\n(below 1: better)")
    error_panel(axes[0, 0], rows)
    legend_below(drawn)
    return drawn


def error_panel(ax, rows):
    """Draw error by timestep. rows: of one quantity."""
    found = summarise(rows[rows["mean"] > 0], ["model", "t"], value="mean", scale="log")
    curves(ax, found, "t", "model")
    ax.margins(x=0.02)
    # At low t the optimum over a finite set is exact up to rounding, twelve decades below anything trained: the axis
    # ends where the networks do.
    trained = found[found.model != "optimum"]["mean"]
    if len(trained):
        ax.set_ylim(0.3 * trained.min(), 3 * found["mean"].max())
    log_axis(ax.yaxis)
    ax.set(xlabel=TIMESTEP, ylabel=QUANTITIES[rows.quantity.iloc[0]])
    ax.label_outer()


@figure("Floor and excess of the error of x0", NOTEBOOK, TABLE, load_errors)
def excess(table):
    """For x0 drawn from the training images, E|x0_hat - x0|^2 is the floor E Var(x0|x_t), which no network avoids
    (black), plus the excess E|x0_hat - E[x0|x_t]|^2, which training left: in all pixels, and in the mean colour. Per
    pixel, in [-1, 1]^2. {BANDS}
    """
    kinds = {"excess": "All pixels", "colour_excess": "Mean colour"}
    if not kinds.keys() <= set(table.quantity):
        raise NothingToDraw("The table has no excess over the optimum: the optimum was not measured.")
    floor = table[(table.quantity == "floor") & (table["mean"] > 0)].groupby("t")["mean"].mean()

    def paint(ax, kind):
        error_panel(ax, table[table.quantity == kind])
        ax.set_title(kinds[kind])
        if kind == "excess":
            ax.plot(floor.index, floor, **look("optimum").line, label=FLOOR, scaley=False)
            ax.set_ylim(top=max(ax.get_ylim()[1], 3 * floor.max()))

    return panel_grid([*kinds], paint, height=2.5, base=0.8, columns=1, sharex=True)


def load_bias(tables):
    """(facts, rows of bias.csv for two weightings and training images, whose optimum is known everywhere)."""
    table = tables.read(*tables.find(BIAS), "quantity split model t frequency weight value se n")
    table = table[(table.split == "train") & table.quantity.isin(_PARTS)]
    shown = preferred(table.model.unique())
    return {"weightings": listed(shown), "n": number_range(table.n)}, table[table.model.isin(shown)]


@figure("Is the excess a bias or a variance?", NOTEBOOK, BIAS, load_bias)
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
