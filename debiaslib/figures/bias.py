"""Figures of notebook 03 on the sign of the error and its parts: is it a bias or a variance, at which frequency?

`diffusion/bias.py` has the definitions. Imports no torch.
"""

import numpy as np

from .facts import listed, number_range, preferred, seed_list
from .lines import TIMESTEP, curve, dots, summarise
from .mse_curves import FLOOR, NOTEBOOK
from .registry import NothingToDraw, figure
from .style import label, legend_below, log_axis, look, new_figure, ordered

GREY_LEVEL = 2 / 255  # one of the 255 steps from black to white, in [-1, 1]
_CHANNELS = ("red", "green", "blue")
_PARTS = {"excess_common": "common part", "excess_between": "variance"}


def load_bias(tables):
    """(facts, rows of bias.csv for two weightings and training images, whose optimum is known everywhere)."""
    columns = "quantity split model seed t channel frequency weight value se n"
    table = tables.frame(*tables.find("tables/bias.csv"), columns)
    table = table[table.split == "train"]
    shown = preferred([who for who in table.model.unique() if who != "optimum" and ";" not in who])
    seeds = table.seed.dropna()
    spread = f"{seed_list(seeds)}; intervals: 95 % over the images, without the spread between seeds"
    if seeds.nunique() > 1:
        spread = f"mean over {seed_list(seeds)}; intervals: 95 % t-intervals over them"
    facts = {"weightings": listed(shown), "n": number_range(table.n), "seeds": seed_list(seeds), "spread": spread}
    facts["times"] = ", ".join(map(str, shown_timesteps(table.t)))
    return facts, table[table.model.isin([*shown, "optimum"])]


@figure(
    "signed_bias", NOTEBOOK, "tables/bias.csv", load_bias,
    title="The signed bias of one-step estimates",
    caption="""Mean over {n} training images, and over the pixels of a channel, of x0_hat - E[x0|x_t], not clipped, in
    [-1, 1] ({weightings}; {seeds}). It estimates E[x0_hat - x0 | t] with less noise. Every timestep has an axis of its
    own; shaded: less than one grey level of 255. Dots and bars: {spread}. Small dots: the seeds, where there are
    several; images and noise are the same for all.""",
)  # fmt: skip
def draw_signed_bias(table):
    """Mean over images of x0_hat - E[x0 | x_t] of each channel, a panel for each of a few timesteps.

    table: columns quantity, model, seed, t, channel, value, se. Several seeds are small dots about their mean and its
    t-interval; one has its interval over images.
    """
    rows = table[(table.quantity == "excess_bias") & (table.model != "optimum")]
    if rows.empty:
        raise NothingToDraw("Not measured in this experiment: the signed distance from the optimum.")
    times = shown_timesteps(rows.t)
    drawn, axes = new_figure(-(-len(times) // 2), min(2, len(times)), height=4.6, sharey=True, panels=len(times))
    for ax, t in zip(axes.flat, times, strict=False):
        part = rows[rows.t == t]
        ax.axvline(0, color="0.45", linewidth=1, zorder=1)
        ax.axvspan(-GREY_LEVEL, GREY_LEVEL, color="0.9", zorder=0, linewidth=0)
        found = summarise(part, ["model", "channel"])
        dots(ax, found, range(3), "channel", who="model")
        _seeds(ax, part)
        largest = max(GREY_LEVEL, part["value"].abs().max())
        reach = min(1.1 * max(largest, found[["low", "high"]].abs().max().max()), 3 * largest)
        ax.set(xlim=(-reach, reach), title=f"t = {t}")
        ax.set_yticks(range(3), _CHANNELS)
    for ax in axes[-1]:
        ax.set_xlabel(r"mean of $\hat x_0 - E[x_0|x_t]$, $[-1,1]$")
    legend_below(drawn, axes.flat[: len(times)])
    return drawn


def _seeds(ax, rows):
    everyone = ordered(rows.model)
    for i, who in enumerate(everyone):
        one = rows[rows.model == who]
        if one.seed.nunique() > 1:
            y = one.channel + 0.16 * (i - (len(everyone) - 1) / 2)
            ax.plot(one["value"], y, ".", color=look(who).colour, markersize=3.5, alpha=0.6)


@figure(
    "bias_or_variance", NOTEBOOK, "tables/bias.csv", load_bias,
    title="Is the excess a bias or a variance?",
    caption="""Excess E|x0_hat - E[x0|x_t]|^2 = the part that the networks of all training seeds have in common (solid)
    plus its variance over them (broken), on {n} training images, for {weightings}, {seeds}. Below: of the mean colour
    alone, as a part of the above. Bands: 95 % intervals over the images, for these networks. Both parts are estimated
    without bias; where an estimate is below zero there is no point.""",
)  # fmt: skip
def draw_bias_or_variance(table):
    """What all training seeds have in common of the excess, and its variance over them: all pixels, and mean colour.

    table: columns quantity, model, t, frequency, weight, value, se. Both panels are in units of the whole, so that the
    lower is a part of the upper. Bands are 95 % intervals over images. One seed has no rows: NothingToDraw.
    """
    rows = table[table.quantity.isin(_PARTS)]
    if rows.empty:
        raise NothingToDraw("One training seed: whether the excess is a bias or a variance takes two or more.")
    drawn, axes = new_figure(2, 1, height=5.8, sharex=True)
    panels = {"All frequencies": rows[rows.frequency.isna()], "Mean colour alone": rows[rows.frequency == 0]}
    for ax, (title, part) in zip(axes.flat, panels.items(), strict=True):
        for who in ordered(part.model):
            for quantity in _PARTS:
                _part(ax, part[(part.model == who) & (part.quantity == quantity)], who, quantity)
        log_axis(ax.yaxis)
        ax.margins(x=0.02)
        ax.set(title=title, xlabel=TIMESTEP, ylabel="part of the excess\n(per pixel, $[-1,1]^2$)")
        ax.label_outer()
    legend_below(drawn, axes)
    return drawn


def _part(ax, rows, who, quantity):
    # An unbiased estimate of a square may fall below zero, where a logarithm ends.
    rows, drawn = rows[rows["value"] > 0].sort_values("t"), look(who)
    value, half = rows["value"] * rows.weight, 1.96 * rows.se * rows.weight
    line = {**drawn.line, "linestyle": "-", "label": f"{label(who)}: {_PARTS[quantity]}"}
    if quantity == "excess_between":
        line |= {"linestyle": (0, (2, 1.5)), "markerfacecolor": "white", "markeredgecolor": drawn.colour}
    ax.plot(rows.t, value, **line)
    low = np.maximum(value - half, value / 10)  # a band that reaches zero ends a decade below
    ax.fill_between(rows.t, low, value + half, color=drawn.colour, alpha=0.15, linewidth=0)


@figure(
    "bias_spectrum", NOTEBOOK, "tables/bias.csv", load_bias,
    title="The excess by spatial frequency",
    caption="""The excess by band of spatial frequency at t = {times}, and the floor (black): the points of a line add
    up to the mean over pixels, and a band reaches up to the next one's lowest frequency; 0 is the mean colour. {n}
    training images, {weightings}. Lines, except the floor: geometric mean; {spread}. The floor is one for all networks;
    its band is 95 % over the images.""",
)  # fmt: skip
def draw_spectrum(table):
    """The excess by band of spatial frequency at a few large timesteps, with the floor beside it.

    table: columns quantity, model, seed, t, frequency, weight, value, se. A point is the band's part of the mean over
    pixels: the points of a line add up to the excess, those of the black one to the floor.
    """
    bands = table[table.frequency.notna()]
    floor = bands[(bands.model == "optimum") & (bands.quantity == "x0_mse")]
    rows = bands[(bands.model != "optimum") & (bands.quantity == "excess")]
    if rows.empty:
        raise NothingToDraw("Not measured in this experiment: the distance from the optimum by frequency.")
    times, frequencies = shown_timesteps(rows.t), sorted(rows.frequency.unique())
    drawn, axes = new_figure(-(-len(times) // 2), min(2, len(times)), height=5.4, sharex=True, panels=len(times))
    for ax, t in zip(axes.flat, times, strict=False):
        for part in (floor[floor.t == t], rows[rows.t == t]):
            _band_lines(ax, part.assign(band=part.frequency.map(frequencies.index)))
        log_axis(ax.yaxis)
        ax.set_title(f"t = {t}")
        ax.set_xticks(range(len(frequencies)), _band_names(frequencies))
    for ax in axes[-1]:
        ax.set_xlabel("cycles per image")
    for ax in axes[:, 0]:
        ax.set_ylabel("part of the mean\nsquare, $[-1,1]^2$")
    legend_below(drawn, axes.flat[: len(times)])
    return drawn


def _band_lines(ax, rows):
    rows = rows.assign(part=rows["value"] * rows.weight, part_se=rows.se * rows.weight)
    found = summarise(rows[rows.part > 0], ["model", "band"], value="part", se="part_se", scale="log")
    for who in ordered(found.model):
        curve(ax, found[found.model == who], "band", who, **({"label": FLOOR} if who == "optimum" else {}))


def _band_names(frequencies):
    """ "0", "1", "2-3", "4-7", "8+": a band ends where the next begins."""
    pairs = zip(frequencies, frequencies[1:], strict=False)
    names = [f"{low:g}" if high - low <= 1 else f"{low:g}-{high - 1:g}" for low, high in pairs]
    return [*names, f"{frequencies[-1]:g}+"]


def shown_timesteps(timesteps):
    """Of the measured timesteps those nearest to 0.5, 0.7, 0.9 and 1 times the largest, in order, each once."""
    times = sorted({int(t) for t in timesteps})
    return sorted({min(times, key=lambda t: (abs(t - share * times[-1]), t)) for share in (0.5, 0.7, 0.9, 1)})
