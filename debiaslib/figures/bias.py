"""The signed error of one-step estimates: is it a bias or a variance, of which colour, at which frequency?

Each figure takes the rows of bias.csv for training images; `bias.py` has the definitions. Imports no torch.
"""

import numpy as np

from .curves import TIMESTEP, curve, summarise
from .style import label, legend_below, log_axis, look, new_figure, note, ordered, style

__all__ = ["GREY_LEVEL", "bias_or_variance", "bias_spectrum", "shown_timesteps", "signed_bias"]

GREY_LEVEL = 2 / 255  # one of the 255 steps from black to white, in [-1, 1]
_CHANNELS = ("Red", "Green", "Blue")
_DASHES = {"excess_common": "-", "excess_between": (0, (2, 1.5))}
_PARTS = {"excess_common": "common part", "excess_between": "variance"}


@style()
def bias_or_variance(table, weightings):
    """What all training seeds have in common of the excess, and its variance over them: all pixels, and mean colour.

    table: columns quantity, model, t, frequency, weight, value, se. Both panels are in units of the whole, so that the
    right is a part of the left. Bands are 95 % intervals over images. One seed has no rows, which a note says.
    """
    rows = _of(table, weightings, tuple(_PARTS))
    if rows.empty:
        return note("One training seed: whether the excess is a bias or a variance takes two or more.")
    figure, [axes] = new_figure(1, 2, height=4.2)
    titles = {"All frequencies": rows[rows.frequency.isna()], "Mean colour alone": rows[rows.frequency == 0]}
    for ax, (title, part) in zip(axes, titles.items(), strict=True):
        for who in ordered(part.model):
            for quantity in _PARTS:
                _part(ax, part[(part.model == who) & (part.quantity == quantity)], who, quantity)
        log_axis(ax.yaxis)
        ax.margins(x=0.02)
        ax.set(title=title, xlabel=TIMESTEP)
    axes[0].set_ylabel(r"part of the excess (per pixel, $[-1,1]^2$)")
    legend_below(figure, axes)
    return figure


def _part(ax, rows, who, quantity):
    # An unbiased estimate of a square may fall below zero, where a logarithm ends.
    rows, drawn = rows[rows["value"] > 0].sort_values("t"), look(who)
    value, half = rows["value"] * rows.weight, 1.96 * rows.se * rows.weight
    line = {**drawn.line, "linestyle": _DASHES[quantity], "label": f"{label(who)}: {_PARTS[quantity]}"}
    if quantity == "excess_between":
        line |= {"markerfacecolor": "white", "markeredgecolor": drawn.colour, "markeredgewidth": 1.2}
    ax.plot(rows.t, value, **line)
    low = np.maximum(value - half, value / 10)  # a band that reaches zero ends a decade below
    ax.fill_between(rows.t, low, value + half, color=drawn.colour, alpha=0.15, linewidth=0)


@style()
def signed_bias(table, weightings):
    """Mean over images of x0_hat - E[x0 | x_t] by timestep, a panel for each channel.

    table: columns quantity, model, seed, t, channel, value, se. The axis is linear within one grey level of 255 and
    logarithmic beyond. Several seeds are thin lines about their mean and its t-interval; one has its interval over
    images.
    """
    rows = _of(table, weightings, ("excess_bias",))
    if rows.empty:
        return note("Not measured in this experiment: the signed distance from the optimum.")
    figure, [axes] = new_figure(1, 3, height=3.8, sharey=True)
    for channel, (ax, title) in enumerate(zip(axes, _CHANNELS, strict=True)):
        part = rows[rows.channel == channel]
        ax.axhline(0, color="0.45", linewidth=1, zorder=1)
        found = summarise(part, ["model", "t"])
        for who in ordered(part.model):
            many = part[part.model == who]
            for _, one in many.groupby("seed") if many.seed.nunique() > 1 else ():
                ax.plot(one.t, one["value"], color=look(who).colour, linewidth=0.7, alpha=0.55)
            curve(ax, found[found.model == who], "t", who)
        ax.set_yscale("symlog", linthresh=GREY_LEVEL, linscale=0.7)
        ax.axhspan(-GREY_LEVEL, GREY_LEVEL, color="0.93", zorder=0, linewidth=0)
        ax.margins(x=0.03)
        ax.set(title=title, xlabel=TIMESTEP)
    reach = max(2 * GREY_LEVEL, 1.3 * rows["value"].abs().max())
    ticks = [value for value in (-1, -0.1, -0.01, 0, 0.01, 0.1, 1) if abs(value) <= reach]
    axes[0].set_ylim(-reach, reach)
    axes[0].set_yticks(ticks, [f"{value:g}" for value in ticks])
    axes[0].set_ylabel(r"mean of $\hat x_0 - E[x_0|x_t]$, $[-1,1]$")
    legend_below(figure, axes)
    return figure


@style()
def bias_spectrum(table, weightings):
    """The excess by band of spatial frequency at a few large timesteps, with the floor beside it.

    table: columns quantity, model, seed, t, frequency, weight, value, se. A point is the band's part of the mean over
    pixels: the points of a line add up to the excess, those of the black one to the floor.
    """
    bands = table[table.frequency.notna()]
    own = bands[(bands.model == "optimum") & (bands.quantity == "x0_mse")]
    rows = _of(bands, weightings, ("excess",))
    if rows.empty:
        return note("Not measured in this experiment: the distance from the optimum by frequency.")
    times = shown_timesteps(rows.t)
    frequencies = sorted(rows.frequency.unique())
    lines = -(-len(times) // 2)
    figure, axes = new_figure(lines, min(2, len(times)), height=0.8 + 2.7 * lines, sharex=True)
    for ax, t in zip(axes.flat, times, strict=False):
        for part in (own[own.t == t], rows[rows.t == t]):
            _band_lines(ax, part.assign(band=part.frequency.map(frequencies.index)))
        log_axis(ax.yaxis)
        ax.set_title(f"t = {t}")
        ax.set_xticks(range(len(frequencies)), _band_names(frequencies))
    for ax in axes.flat[len(times) :]:
        ax.remove()
    for ax in axes[-1]:
        ax.set_xlabel("cycles per image")
    for ax in axes[:, 0]:
        ax.set_ylabel(r"part of the mean square, $[-1,1]^2$")
    legend_below(figure, axes.flat[: len(times)])
    return figure


def _band_lines(ax, rows):
    rows = rows.assign(part=rows["value"] * rows.weight, part_se=rows.se * rows.weight)
    found = summarise(rows[rows.part > 0], ["model", "band"], value="part", se="part_se", log=True)
    for who in ordered(found.model):
        named = {"label": r"floor $E\,\mathrm{Var}(x_0|x_t)$"} if who == "optimum" else {}
        curve(ax, found[found.model == who], "band", who, **named)


def _band_names(frequencies):
    """ "0\n(mean colour)", "1", "2-3", "4-7", "8+": a band ends where the next begins."""
    names = []
    for low, high in zip(frequencies, [*frequencies[1:], None], strict=True):
        if high is None:
            names.append(f"{low:g}+")
        else:
            names.append(f"{low:g}" if high - low <= 1 else f"{low:g}-{high - 1:g}")
    return ["0\n(mean colour)", *names[1:]]


def shown_timesteps(timesteps):
    """Of the measured timesteps those nearest to 0.5, 0.7, 0.9 and 1 times the largest, in order, each once."""
    times = sorted({int(t) for t in timesteps})
    return sorted({min(times, key=lambda t: (abs(t - share * times[-1]), t)) for share in (0.5, 0.7, 0.9, 1)})


def _of(table, weightings, quantities):
    return table[table.model.isin(weightings) & table.quantity.isin(quantities)]
