"""Figures of notebook 04: the loss weights, the noise of their gradients, samples of all weightings. No torch."""

import numpy as np

from .existence import NO_DATA, SAME_NOISE, common_steps, load_samples
from .facts import listed, number_range
from .grids import Row, image_grid
from .lines import TIMESTEP, dense
from .registry import NothingToDraw, figure
from .style import count, label, legend_below, log_axis, look, new_figure, ordered

__all__ = ["logsnr_density"]

NOTEBOOK = "04_weighting_comparison"
_UNITS = {"epsilon": r"of an $\epsilon$ loss", "sample": r"of an $x_0$ loss", "v_prediction": r"of a $v$ loss"}
_MARKERS = ("o", "s", "D")  # of the ways to apply a weight; colours are the weightings'


def load_weights(tables):
    """(facts, weights.csv)."""
    table = tables.frame(*tables.find("tables/weights.csv"), "t snr weighting prediction_type raw normalized share")
    return {"T": int(table.t.max()) + 1, "weightings": listed(table.weighting)}, table


@figure(
    "weights", NOTEBOOK, "tables/weights.csv", load_weights,
    title="Loss weights",
    caption=f"""Weight of the squared error of epsilon by timestep for {{weightings}}, as defined and divided by its
    mean over the {{T}} timesteps (paper, figure 5 left). {NO_DATA}""",
)  # fmt: skip
def draw_weights(table):
    """Weights of the epsilon loss: as defined, and divided by their mean. table: weights.csv."""
    drawn, axes = new_figure(2, 1, height=5.6, sharex=True)
    rows = table[table.prediction_type == "epsilon"]
    for ax, column, title in zip(axes.flat, ("raw", "normalized"), ("As defined", "Divided by its mean"), strict=True):
        _weight_panel(ax, rows, column)
        ax.set(title=title, xlabel=TIMESTEP, ylabel="weight" if column == "raw" else "weight / mean weight")
        ax.label_outer()
    legend_below(drawn, axes)
    return drawn


@figure(
    "weights_units", NOTEBOOK, "tables/weights.csv", load_weights,
    title="The same weights in three parametrisations",
    caption=f"""The same objectives as weights of a squared error of epsilon, of x0 (weight times SNR) and of v (weight
    times SNR / (1 + SNR)), each divided by the mean of its epsilon form. {NO_DATA}""",
)  # fmt: skip
def draw_weights_units(table):
    """The same normalised weights for a squared error of epsilon, x0 and v. table: weights.csv."""
    known = [unit for unit in _UNITS if (table.prediction_type == unit).any()]
    drawn, axes = new_figure(len(known), 1, height=0.8 + 2.1 * len(known), sharex=True)
    for ax, unit in zip(axes.flat, known, strict=True):
        _weight_panel(ax, table[table.prediction_type == unit], "normalized")
        ax.set(title=f"Weight {_UNITS[unit]}", xlabel=TIMESTEP, ylabel="weight / mean")
        ax.label_outer()
    legend_below(drawn, axes)
    return drawn


def _weight_panel(ax, rows, column):
    for i, who in enumerate(ordered(rows.weighting)):
        one = rows[(rows.weighting == who) & (rows[column] > 0)].sort_values("t")
        dense(ax, one.t, one[column], who, i)
    log_axis(ax.yaxis)
    ax.margins(x=0.02)


@figure(
    "weight_share", NOTEBOOK, "tables/weights.csv", load_weights,
    title="Share of the weight by timestep",
    caption=f"""Share of the whole weight of the epsilon loss that lies at timesteps up to t, for {{weightings}}.
    {NO_DATA}""",
)  # fmt: skip
def draw_weight_share(table):
    """Cumulative share of the epsilon loss's weight over t. table: weights.csv."""
    drawn, [[ax]] = new_figure(height=3.8)
    rows = table[table.prediction_type == "epsilon"]
    for i, who in enumerate(ordered(rows.weighting)):
        one = rows[rows.weighting == who].sort_values("t")
        dense(ax, one.t, one.share, who, i)
    ax.set(xlabel=TIMESTEP, ylabel=r"share of all weight at timesteps $\leq t$", ylim=(-0.02, 1.02))
    ax.margins(x=0.01)
    legend_below(drawn, [ax])
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


@figure(
    "weights_logsnr", NOTEBOOK, "tables/weights.csv", load_weights,
    title="The weights on the axis of log SNR",
    caption=f"""Weight of the epsilon loss per unit of ln SNR, w(t) / |d ln SNR/dt|, for {{weightings}}, the noisy end
    at the right; each has the integral 1 over the range of the schedule. Unlike the weight of a timestep, it can be
    compared between schedules. {NO_DATA}""",
)  # fmt: skip
def draw_logsnr(table):
    """Weight of the epsilon loss per unit of ln SNR, least noise at the left. table: weights.csv."""
    drawn, [[ax]] = new_figure(height=3.8)
    rows = table[table.prediction_type == "epsilon"]
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
    legend_below(drawn, [ax])
    return drawn


def load_gradient_noise(tables):
    columns = "weighting way images_seen batches batch_size variance variance_se noise_to_signal"
    table = tables.frame(*tables.find("tables/gradient_noise.csv"), columns)
    hidden = [who for who in table.weighting.unique() if not (table[table.weighting == who].noise_to_signal > 0).any()]
    left_out = f" Left out, its expected gradient being hidden by noise: {listed(hidden)}." if hidden else ""
    counts = {name: number_range(table[name]) for name in ("batches", "batch_size", "images_seen")}
    return {**counts, "left_out": left_out}, table


@figure(
    "gradient_noise", NOTEBOOK, "tables/gradient_noise.csv", load_gradient_noise,
    title="Noise of the gradient, by the way to apply the weight",
    caption="""Trace of the covariance of one batch's gradient over the squared norm of the expected gradient, for the
    weight as a factor on timesteps drawn uniformly or stratified, and as the density from which they are drawn.
    {batches} batches of {batch_size} images, the same images and noise for all; each weighting's own EMA network after
    {images_seen} images, first seed. Bars: 95 % from the spread of the variance over the batches; the error of the
    squared norm, which the ways of one weighting share, is not in them.{left_out}""",
)  # fmt: skip
def draw_gradient_noise(table):
    """Noise to signal of one batch's gradient: a line a weighting, a marker a way to apply it."""
    if table.empty:
        raise NothingToDraw("One network, trained elsewhere: it has no weighting whose gradient could be measured.")
    rows = table[table.noise_to_signal > 0]
    if rows.empty:
        raise NothingToDraw("In so few batches, noise hides the gradient of every weighting.")
    weightings, ways = ordered(table.weighting), list(dict.fromkeys(table.way))
    drawn, [[ax]] = new_figure(height=1.3 + 0.5 * len(weightings))
    for j, way in enumerate(ways):
        one = rows[rows.way == way]
        y = [weightings.index(who) + 0.2 * (j - (len(ways) - 1) / 2) for who in one.weighting]
        spread = np.exp(1.96 * one.variance_se / one.variance)  # an interval of the logarithm
        colours = [look(who).colour for who in one.weighting]
        ax.scatter(one.noise_to_signal, y, c=colours, marker=_MARKERS[j % 3], s=42, zorder=3)
        ax.hlines(y, one.noise_to_signal / spread, one.noise_to_signal * spread, colors=colours, linewidth=1.2)
        ax.scatter([], [], c="0.3", marker=_MARKERS[j % 3], s=42, label=way)
    log_axis(ax.xaxis)
    ax.set_yticks(range(len(weightings)), [label(who) for who in weightings])
    ax.set_ylim(len(weightings) - 0.5, -0.5)
    ax.set_xlabel("variance of one batch's gradient / squared norm of its expectation")
    legend_below(drawn, [ax])
    return drawn


@figure(
    "samples_all", NOTEBOOK, "tables/samples-*.npz", load_samples,
    title="Samples of all weightings by number of steps",
    caption=f"""Samples of {{weightings}} by number of sampling steps (paper, figure 5 right), networks of {{seeds}}.
    {SAME_NOISE}""",
)  # fmt: skip
def draw_samples(samples):
    """One or two rows of each weighting from the same starting noise, a column for each number of steps."""
    steps, images = common_steps(samples), 2 if len(samples) <= 4 else 1
    rows = []
    for who in ordered(samples):
        shown = samples[who]["images"][[list(samples[who]["steps"]).index(s) for s in steps]]
        rows += [Row(list(shown[:, i]), "", look(who).colour, label(who)) for i in range(min(images, shown.shape[1]))]
    return image_grid(rows, [count(s) for s in steps], "steps")
