"""The curves, one function per figure: tables in, a matplotlib Figure out; nothing is saved or shown. Imports no torch.

`figures.py` knows which table goes where and saves; `image_grids.py` draws images, `distance_plots.py` distances;
colours are in `figure_style.py`. Where a table has several training seeds, a line is their mean and the band its 95 %
t-interval; with one seed the band is the 95 % interval from the table's own standard error, if it has one. On a
logarithmic axis both are taken of the logarithm.
"""

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator
from scipy.special import stdtrit

from .style import count, label, legend_below, log_axis, look, new_figure, note, ordered, style

__all__ = [
    "error_curves",
    "excess",
    "mse",
    "snr",
    "summarise",
    "training_curves",
    "weight_share",
    "weights",
    "weights_units",
]

TIMESTEP = "timestep $t$ (0-based)"
QUANTITIES = {
    "epsilon_mse": r"MSE of $\hat\epsilon$ (per pixel)",
    "x0_mse": r"MSE of $\hat x_0$ (per pixel, $[-1,1]^2$)",
    "colour_mse": r"MSE of the mean colour ($[-1,1]^2$)",
}
UNITS = {"epsilon": r"of an $\epsilon$ loss", "sample": r"of an $x_0$ loss", "v_prediction": r"of a $v$ loss"}


def summarise(table, by, value="value", se="se", log=False):
    """DataFrame (by, mean, low, high, seeds): mean over seeds, 95 % interval (NaN for one seed without standard error).

    `log` takes the mean and the interval of the logarithm; every value must then be positive.
    """
    work = table[by].copy()
    work["value"] = np.log(table[value]) if log else table[value]
    spread = table[se] if se in table else pd.Series(np.nan, table.index)
    work["se"] = spread / table[value] if log else spread
    groups = work.groupby(by, sort=True)
    found = groups["value"].agg(mean="mean", sd="std", seeds="count").join(groups["se"].first()).reset_index()
    many = (found.seeds > 1).to_numpy()
    half = np.where(
        many, stdtrit(np.maximum(found.seeds - 1, 1), 0.975) * found.sd / np.sqrt(found.seeds), 1.96 * found.se
    )
    found["low"], found["high"] = found["mean"] - half, found["mean"] + half
    if log:
        found[["mean", "low", "high"]] = np.exp(found[["mean", "low", "high"]])
    return found[[*by, "mean", "low", "high", "seeds"]]


def curve(ax, rows, x, who, **more):
    """Draw what `summarise` gave for one weighting: its line, and its band where there is one."""
    drawn = look(who)
    ax.plot(rows[x], rows["mean"], **{**drawn.line, "label": label(who), **more})
    if rows["low"].notna().any():
        ax.fill_between(rows[x], rows["low"], rows["high"], color=drawn.colour, alpha=0.18, linewidth=0)


def _dense(ax, x, y, who, i):
    """A line of many points: markers now and then, at other places for each weighting, so that none hides another."""
    every = max(1, len(x) // 6)
    ax.plot(x, y, **look(who).line, label=label(who), markevery=(int((0.15 + 0.13 * i) * every) % every, every))


@style()
def snr(table):
    """SNR(t) and 1/sqrt(SNR(t)) (paper, figure 2 left). `table`: columns t and snr, one row a timestep."""
    figure, [[ax]] = new_figure(height=3.6)
    for values, who, name in (
        (table.snr, look("optimum"), r"$\mathrm{SNR}(t)$"),
        (table.snr**-0.5, look("debiased"), r"$1\,/\sqrt{\mathrm{SNR}(t)}$"),
    ):
        shown = np.isfinite(values) & (values > 0)
        ax.plot(table.t[shown], values[shown], color=who.colour, linestyle="-", linewidth=2.2)
        end = np.flatnonzero(shown)[-1]
        at = table.t.iloc[end], values.iloc[end]
        ax.annotate(name, at, (8, 0), textcoords="offset points", va="center", fontsize=12, color=who.colour)
    ax.axhline(1, color="0.7", linewidth=0.9, zorder=1)
    one = int(table.t.iloc[(np.log(table.snr.clip(lower=1e-12))).abs().argmin()])
    ax.plot([one], [1], "o", color="0.3")
    ax.annotate(f"SNR = 1 near t = {one}", (one, 1), (-4, 14), textcoords="offset points", fontsize=9, color="0.3")
    log_axis(ax.yaxis)
    ax.margins(x=0.01)
    ax.set(xlabel=TIMESTEP, ylabel="ratio, no unit (log scale)")
    return figure


@style()
def weights(table):
    """Weights of the epsilon loss: raw, and divided by their mean (paper, figure 5 left). `table`: weights.csv."""
    figure, [axes] = new_figure(1, 2, height=4.0)
    panels = {
        "raw": ("Raw", "weight of the squared error"),
        "normalized": ("Divided by its mean over t", "weight / mean weight"),
    }
    rows = table[table.prediction_type == "epsilon"]
    for ax, (column, (title, axis)) in zip(axes, panels.items(), strict=True):
        _weight_panel(ax, rows, column)
        ax.set(title=title, xlabel=TIMESTEP, ylabel=axis)
    legend_below(figure, axes)
    return figure


@style()
def weights_units(table):
    """The same normalised weights for a squared error of epsilon, x0 and v. `table`: weights.csv."""
    known = [unit for unit in UNITS if (table.prediction_type == unit).any()]
    figure, [axes] = new_figure(1, len(known), height=3.9)
    for ax, unit in zip(axes, known, strict=True):
        _weight_panel(ax, table[table.prediction_type == unit], "normalized")
        ax.set(title=f"Weight {UNITS[unit]}", xlabel=TIMESTEP)
    axes[0].set_ylabel(r"weight / mean weight of the $\epsilon$ form")
    legend_below(figure, axes)
    return figure


def _weight_panel(ax, rows, column):
    for i, who in enumerate(ordered(rows.weighting)):
        one = rows[(rows.weighting == who) & (rows[column] > 0)].sort_values("t")
        _dense(ax, one.t, one[column], who, i)
    log_axis(ax.yaxis)
    ax.margins(x=0.02)


@style()
def weight_share(table):
    """Cumulative share of the epsilon loss's weight over t. `table`: weights.csv."""
    figure, [[ax]] = new_figure(height=4.0)
    rows = table[table.prediction_type == "epsilon"]
    for i, who in enumerate(ordered(rows.weighting)):
        one = rows[rows.weighting == who].sort_values("t")
        _dense(ax, one.t, one.share, who, i)
    ax.set(xlabel=TIMESTEP, ylabel=r"share of all weight at timesteps $\leq t$", ylim=(-0.02, 1.02))
    ax.margins(x=0.01)
    legend_below(figure, [ax])
    return figure


def _error_panel(ax, rows, ylabel):
    found = summarise(rows[rows["mean"] > 0], ["model", "t"], value="mean", log=True)
    for who in ordered(found.model):
        curve(ax, found[found.model == who], "t", who)
    ax.margins(x=0.02)
    _limits(ax, found)
    ax.set(xlabel=TIMESTEP, ylabel=ylabel)


def _limits(ax, found):
    # At low t the optimum over a finite set is exact up to rounding, twelve decades below anything trained: the axis
    # ends where the networks do.
    trained = found[found.model != "optimum"]["mean"]
    if len(trained):
        ax.set_ylim(0.3 * trained.min(), 3 * max(found["mean"].max(), trained.max()))
    log_axis(ax.yaxis)


@style()
def mse(table, quantity):
    """Error by timestep (paper, figure 4), and below it the ratio to the first weighting's error, paired.

    `table`: the rows of mse.csv for one split, whose `difference` is from that weighting (constant, where it is there);
    `quantity`: "epsilon_mse" or "x0_mse". With a single weighting the lower panel is left out.
    """
    rows = table[table.quantity == quantity]
    if rows.empty:
        return note(f"The table has no {quantity}.")
    trained = rows[~rows.model.isin(["optimum", "initial"]) & rows.difference.notna()]
    from_base = trained.groupby("model").difference.apply(lambda values: values.abs().max())
    base = [who for who in ordered(from_base.index) if from_base[who] == 0]
    compared = trained[~trained.model.isin(base)]
    if compared.empty or not base:
        figure, axes = new_figure(height=4.0)
    else:
        figure, axes = new_figure(2, 1, height=6.0, sharex=True, height_ratios=(3, 2))
        _ratio_panel(axes[1, 0], compared.copy(), base[0])
    _error_panel(axes[0, 0], rows, QUANTITIES[quantity])
    axes[0, 0].set_xlabel(TIMESTEP if len(axes) == 1 else "")
    legend_below(figure, axes)
    return figure


def _ratio_panel(ax, rows, base):
    baseline = rows["mean"] - rows.difference
    rows["ratio"], rows["ratio_se"] = rows["mean"] / baseline, rows.difference_se / baseline
    found = summarise(rows, ["model", "t"], value="ratio", se="ratio_se", log=True)
    ax.axhline(1, color=look(base).colour, linestyle=look(base).dashes, linewidth=1.4)
    for who in ordered(found.model):
        curve(ax, found[found.model == who], "t", who)
    log_axis(ax.yaxis)
    ax.set(xlabel=TIMESTEP, ylabel=f"MSE / MSE of {label(base)}\n(below 1: better)")


@style()
def error_curves(table, quantities, titles=None):
    """One panel of error by timestep for each quantity. `table`: the rows of mse.csv for one split."""
    figure, [axes] = new_figure(1, len(quantities), height=4.0)
    for ax, quantity, title in zip(axes, quantities, titles or [""] * len(quantities), strict=True):
        _error_panel(ax, table[table.quantity == quantity], QUANTITIES[quantity])
        ax.set_title(title)
    legend_below(figure, axes)
    return figure


@style()
def excess(table):
    """What training left over the floor that no network avoids, in pixels and colour. `table`: mse.csv's train rows."""
    kinds = {"excess": "Pixels: excess over the optimum", "colour_excess": "Mean colour: excess over the optimum"}
    kinds = {kind: title for kind, title in kinds.items() if (table.quantity == kind).any()}
    if not kinds:
        return note("The table has no excess over the optimum: the optimum was not measured.")
    figure, [axes] = new_figure(1, len(kinds), height=4.0)
    floor = table[(table.quantity == "floor") & (table["mean"] > 0)].groupby("t")["mean"].mean()
    for ax, (kind, title) in zip(axes, kinds.items(), strict=True):
        _error_panel(ax, table[table.quantity == kind], r"squared distance of $\hat x_0$ from $E[x_0|x_t]$")
        ax.set_title(title)
    if len(floor):
        bottom, top = axes[0].get_ylim()
        axes[0].plot(floor.index, floor, **look("optimum").line, label=r"floor $E\,\mathrm{Var}(x_0|x_t)$")
        axes[0].set_ylim(bottom, max(top, 3 * floor.max()))
    legend_below(figure, axes)
    return figure


@style()
def training_curves(log, weighting):
    """Loss, gradient norm and speed of one run against images seen. `log`: DataFrame of log.jsonl."""
    figure, [axes] = new_figure(1, 3, height=3.4)
    colour = look(weighting).colour
    _smoothed(axes[0], log, "mse", "0.45", "plain error, unweighted")
    _smoothed(axes[0], log, "loss", colour, "loss, weighted")
    _smoothed(axes[1], log, "grad_norm", colour)
    _smoothed(axes[2], log, "images_per_second", colour)
    for ax, title in zip(axes, ("Loss", "Gradient norm", "Images per second"), strict=True):
        ax.set(title=title, xlabel="images seen in training")
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.xaxis.set_major_formatter(lambda value, _: count(value))
    log_axis(axes[0].yaxis)
    log_axis(axes[1].yaxis)
    axes[2].set_ylim(bottom=0)
    axes[0].legend(loc="upper right", handlelength=1.5)
    return figure


def _smoothed(ax, log, column, colour, name=None):
    """The logged values, faint, under their running median over a twentieth of the run."""
    rows = log.dropna(subset=[column]) if column in log else log.iloc[:0]
    if len(rows) > 20:
        ax.plot(rows.images, rows[column], color=colour, linewidth=0.7, alpha=0.3)
        rows = rows.assign(
            **{column: rows[column].rolling(max(3, len(rows) // 20), center=True, min_periods=1).median()}
        )
    ax.plot(rows.images, rows[column] if len(rows) else [], color=colour, linewidth=1.8, label=name)


def real_line(ax, rows, logarithmic):
    """The real images' value as a grey line, with 1.96 standard errors where it has them; rows: value, se."""
    value, se = rows["value"].mean(), pd.to_numeric(rows["se"], errors="coerce").mean()
    drawn = look("real")
    if not logarithmic or value > 0:  # an unbiased estimate of a distance near 0 can fall below it
        ax.axhline(value, color=drawn.colour, linestyle=drawn.dashes, linewidth=1.5, zorder=1, label=label("real"))
    if se > 0 and (not logarithmic or value > 1.96 * se):
        ax.axhspan(value - 1.96 * se, value + 1.96 * se, color=drawn.colour, alpha=0.15, linewidth=0, zorder=0)
