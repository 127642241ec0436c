"""Figures of notebook 04: the loss weights, samples of all weightings. No torch."""

import numpy as np

from .existence import common_steps, load_samples
from .grids import Row, image_grid
from .lines import TIMESTEP, dense, listed
from .registry import figure
from .style import count, label, legend_below, log_axis, look, new_figure, ordered, panel_grid

__all__ = ["logsnr_density"]

NOTEBOOK, TABLE = "04_weighting_comparison", "tables/weights.csv"
_UNITS = {"epsilon": r"of an $\epsilon$ loss", "sample": r"of an $x_0$ loss", "v_prediction": r"of a $v$ loss"}


def load_weights(tables):
    """(facts, weights.csv, its rows of the epsilon loss)."""
    table = tables.frame(*tables.find(TABLE), "t snr weighting prediction_type raw normalized share")
    facts = {"T": int(table.t.max()) + 1, "weightings": listed(table.weighting)}
    return facts, table, table[table.prediction_type == "epsilon"]


@figure("Loss weights", NOTEBOOK, TABLE, load_weights)
def weights(_, rows):
    """Weight of the squared error of epsilon by timestep for {weightings}, as defined and divided by its mean over the
    {T} timesteps (paper, figure 5 left). {NO_DATA}
    """
    panels = {"As defined": ("raw", "weight"), "Divided by its mean": ("normalized", "weight / mean weight")}
    paint = lambda ax, title: _weight_panel(ax, rows, *panels[title], title)  # noqa: E731
    return panel_grid([*panels], paint, height=2.8, base=0, columns=1, sharex=True)


@figure("The same weights in three parametrisations", NOTEBOOK, TABLE, load_weights)
def weights_units(table, _):
    """The same objectives as weights of a squared error of epsilon, of x0 (weight times SNR) and of v (weight times
    SNR / (1 + SNR)), each divided by the mean of its epsilon form. {NO_DATA}
    """

    def paint(ax, unit):
        rows = table[table.prediction_type == unit]
        _weight_panel(ax, rows, "normalized", "weight / mean", f"Weight {_UNITS[unit]}")

    known = [unit for unit in _UNITS if (table.prediction_type == unit).any()]
    return panel_grid(known, paint, height=2.1, base=0.8, columns=1, sharex=True)


def _weight_panel(ax, rows, column, ylabel, title):
    dense(ax, rows[rows[column] > 0], "t", column)
    log_axis(ax.yaxis)
    ax.margins(x=0.02)
    ax.set(title=title, xlabel=TIMESTEP, ylabel=ylabel)
    ax.label_outer()


@figure("Share of the weight by timestep", NOTEBOOK, TABLE, load_weights)
def weight_share(_, rows):
    """Share of the whole weight of the epsilon loss that lies at timesteps up to t, for {weightings}. {NO_DATA}"""
    drawn, [[ax]] = new_figure(height=3.8)
    dense(ax, rows, "t", "share")
    ax.set(xlabel=TIMESTEP, ylabel=r"share of all weight at timesteps $\leq t$", ylim=(-0.02, 1.02))
    ax.margins(x=0.01)
    legend_below(drawn)
    return drawn


def logsnr_density(weight, snr):
    """(ln SNR, density): the weight of an epsilon loss per unit of ln SNR, with integral 1 over the schedule's range.

    weight, snr: (T,), w(t) and SNR(t), the timesteps drawn uniformly: density = w(t) / |d ln SNR/dt|, normalised.
    Timesteps of no signal, where ln SNR is -infinity, are left out. Both arrays rise along ln SNR.
    """
    weight, snr = np.asarray(weight, float), np.asarray(snr, float)
    shown = np.isfinite(weight) & (snr > 0)
    log_snr = np.log(snr[shown])
    density = weight[shown] / np.abs(np.gradient(log_snr))
    return log_snr[::-1], (density / np.abs(np.trapezoid(density, log_snr)))[::-1]


@figure("The weights on the axis of log SNR", NOTEBOOK, TABLE, load_weights)
def weights_logsnr(_, rows):
    """Weight of the epsilon loss per unit of ln SNR, w(t) / |d ln SNR/dt|, for {weightings}, the noisy end at the
    right; each has the integral 1 over the range of the schedule. Unlike the weight of a timestep, it can be compared
    between schedules. {NO_DATA}
    """
    drawn, [[ax]] = new_figure(height=3.8)
    for i, who in enumerate(ordered(rows.weighting)):
        one = rows[rows.weighting == who].sort_values("t")
        log_snr, density = logsnr_density(one.raw, one.snr)
        # Markers evenly spread over the axis; every line's begin at another place.
        at = np.searchsorted(log_snr, np.linspace(log_snr[0], log_snr[-1], 9)[1:-1] + 0.25 * i)
        marked = np.unique(at.clip(max=len(log_snr) - 1)).tolist()
        ax.plot(np.exp(log_snr), density, **look(who).line, label=label(who), markevery=marked)
    log_axis(ax.xaxis)
    ax.invert_xaxis()
    ax.set_ylim(bottom=0)
    ax.margins(x=0.01)
    ax.set(xlabel="SNR (log scale; the noisy end is at the right)", ylabel=r"weight per unit of $\ln\,$SNR")
    legend_below(drawn)
    return drawn


@figure("Samples of all weightings by number of steps", NOTEBOOK, "tables/samples-*.npz", load_samples)
def samples_all(samples):
    """Samples of {weightings} by number of sampling steps (paper, figure 5 right), networks of {seeds}. {SAME_NOISE}"""
    steps, images = common_steps(samples), 2 if len(samples) <= 4 else 1
    rows = []
    for who in ordered(samples):
        shown = samples[who]["images"][[list(samples[who]["steps"]).index(s) for s in steps]]
        rows += [Row(list(shown[:, i]), "", look(who).colour, label(who)) for i in range(min(images, shown.shape[1]))]
    return image_grid(rows, [count(s) for s in steps], "steps")
