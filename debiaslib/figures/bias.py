"""Figures of notebook 03 on the sign of the error and its parts: is it a bias or a variance, at which frequency?

`diffusion/bias.py` has the definitions. Imports no torch.
"""

import numpy as np

from .lines import TIMESTEP, band, curve, dots, listed, number_range, preferred, seed_list, spread, summarise
from .mse_curves import FLOOR, NOTEBOOK
from .registry import NothingToDraw, figure
from .style import label, log_axis, look, ordered, panel_grid

TABLE = "tables/bias.csv"
GREY_LEVEL = 2 / 255  # one of the 255 steps from black to white, in [-1, 1]
_CHANNELS = ("red", "green", "blue")
_PARTS = {"excess_common": "common part", "excess_between": "variance"}


def load_bias(tables):
    """(facts, rows of bias.csv for two weightings and training images, whose optimum is known everywhere)."""
    table = tables.frame(*tables.find(TABLE), "quantity split model seed t channel frequency weight value se n")
    table = table[table.split == "train"]
    shown = preferred([who for who in table.model.unique() if who != "optimum" and ";" not in who])
    over = spread(
        table[table.model != "optimum"], "; intervals: 95 % over the images, without the spread between seeds", "model"
    )
    facts = {"weightings": listed(shown), "n": number_range(table.n), "seeds": seed_list(table.seed.dropna())}
    times = ", ".join(map(str, shown_timesteps(table.t)))
    return {**facts, "spread": over, "times": times}, table[table.model.isin([*shown, "optimum"])]


@figure("The signed bias of one-step estimates", NOTEBOOK, TABLE, load_bias)
def signed_bias(table):
    """Mean over {n} training images, and over the pixels of a channel, of x0_hat - E[x0|x_t], not clipped, in [-1, 1]
    ({weightings}; {seeds}). It estimates E[x0_hat - x0 | t] with less noise. Every timestep has an axis of its own;
    shaded: less than one grey level of 255. Dots and bars: {spread}. Small dots: the seeds, where there are several;
    images and noise are the same for all.
    """
    rows = table[(table.quantity == "excess_bias") & (table.model != "optimum")]
    if rows.empty:
        raise NothingToDraw("Not measured in this experiment: the signed distance from the optimum.")

    def paint(ax, t):
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
        if ax.get_subplotspec().is_last_row():
            ax.set_xlabel(r"mean of $\hat x_0 - E[x_0|x_t]$, $[-1,1]$")

    return _by_timestep(rows, paint, height=4.6, sharey=True)


def _by_timestep(rows, paint, height, **subplots):
    times = shown_timesteps(rows.t)
    return panel_grid(times, paint, height=height / -(-len(times) // 2), base=0, **subplots)


def _seeds(ax, rows):
    everyone = ordered(rows.model)
    for i, who in enumerate(everyone):
        one = rows[rows.model == who]
        if one.seed.nunique() > 1:
            y = one.channel + 0.16 * (i - (len(everyone) - 1) / 2)
            ax.plot(one["value"], y, ".", color=look(who).colour, markersize=3.5, alpha=0.6)


@figure("Is the excess a bias or a variance?", NOTEBOOK, TABLE, load_bias)
def bias_or_variance(table):
    """Excess E|x0_hat - E[x0|x_t]|^2 = the part that the networks of all training seeds have in common (solid) plus its
    variance over them (broken), on {n} training images, for {weightings}, {seeds}. Below: of the mean colour alone, as
    a part of the above. Bands: 95 % intervals over the images, for these networks. Both parts are estimated without
    bias; where an estimate is below zero there is no point.
    """
    rows = table[table.quantity.isin(_PARTS)]
    if rows.empty:
        raise NothingToDraw("One training seed: whether the excess is a bias or a variance takes two or more.")
    panels = {"All frequencies": rows[rows.frequency.isna()], "Mean colour alone": rows[rows.frequency == 0]}

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


@figure("The excess by spatial frequency", NOTEBOOK, TABLE, load_bias)
def bias_spectrum(table):
    """The excess by band of spatial frequency at t = {times}, and the floor (black): the points of a line add up to the
    mean over pixels, and a band reaches up to the next one's lowest frequency; 0 is the mean colour. {n} training
    images, {weightings}. Lines, except the floor: geometric mean; {spread}. The floor is one for all networks; its band
    is 95 % over the images.
    """
    bands = table[table.frequency.notna()]
    bands = bands.assign(part=bands["value"] * bands.weight, part_se=bands.se * bands.weight)
    floor = bands[(bands.model == "optimum") & (bands.quantity == "x0_mse")]
    rows = bands[(bands.model != "optimum") & (bands.quantity == "excess")]
    if rows.empty:
        raise NothingToDraw("Not measured in this experiment: the distance from the optimum by frequency.")
    frequencies = sorted(rows.frequency.unique())

    def paint(ax, t):
        for part in (floor[(floor.t == t) & (floor.part > 0)], rows[(rows.t == t) & (rows.part > 0)]):
            found = summarise(part, ["model", "frequency"], value="part", se="part_se", scale="log")
            found["frequency"] = found.frequency.map(frequencies.index)
            for who in ordered(found.model):
                more = {"label": FLOOR} if who == "optimum" else {}
                curve(ax, found[found.model == who], "frequency", who, **more)
        log_axis(ax.yaxis)
        ax.set_title(f"t = {t}")
        ax.set_xticks(range(len(frequencies)), _band_names(frequencies))
        place = ax.get_subplotspec()
        ax.set_xlabel("cycles per image" if place.is_last_row() else "")
        ax.set_ylabel("part of the mean\nsquare, $[-1,1]^2$" if place.is_first_col() else "")

    return _by_timestep(rows, paint, height=5.4, sharex=True)


def _band_names(frequencies):
    """ "0", "1", "2-3", "4-7", "8+": a band ends where the next begins."""
    pairs = zip(frequencies, frequencies[1:], strict=False)
    names = [f"{low:g}" if high - low <= 1 else f"{low:g}-{high - 1:g}" for low, high in pairs]
    return [*names, f"{frequencies[-1]:g}+"]


def shown_timesteps(timesteps):
    """Of the measured timesteps those nearest to 0.5, 0.7, 0.9 and 1 times the largest, in order, each once."""
    times = sorted({int(t) for t in timesteps})
    return sorted({min(times, key=lambda t: (abs(t - share * times[-1]), t)) for share in (0.5, 0.7, 0.9, 1)})
