"""One style for every figure: rcParams, and a colour, marker and dashes for each weighting by its name. No torch.

The colours are Okabe and Ito's, which readers with any colour vision can tell apart.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import matplotlib.style
import numpy as np
import seaborn
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullFormatter, NullLocator

from ..diffusion.strategies import KNOWN, parse_strategy

WIDTH = 6.0  # inches: on a telephone (390 pixels) the smallest type, 9 points, is then 8 pixels high
TITLE = 0.32  # inches that a title takes

_OURS = matplotlib.rc_params_from_file(Path(__file__).with_name("figures.mplstyle"), use_default_template=False)
_RC = {**seaborn.axes_style("ticks"), **_OURS}

# name: colour, marker, dashes. The yellow is darker than Okabe and Ito's, which is faint as a line on white.
_LOOKS = {
    "constant": ("#D55E00", "o", "--"),
    "debiased": ("#0072B2", "s", "-"),
    "inverse_snr": ("#CC79A7", "^", (0, (6, 1.5, 1.5, 1.5))),
    "p2": ("#009E73", "D", "-."),
    "min_snr": ("#E69F00", "v", (0, (1.2, 1.2))),
    "soft_min_snr": ("#A89500", "P", (0, (4, 1.2, 1.2, 1.2, 1.2, 1.2))),
    "max_snr": ("#56B4E9", "X", (0, (8, 2))),
    "edm": ("#6A3D9A", "p", (0, (3, 1))),
    "pretrained": ("#117733", "d", "-"),
    "optimum": ("#000000", "*", "-"),
    "initial": ("#7F7F7F", "x", ":"),
    "real": ("#7F7F7F", "", (0, (7, 2))),
}
_LABELLED = {2.5: (1.0,), 1.3: (1.0, 3.0), 0.7: (1.0, 2.0, 5.0)}  # above so many decades
_VARIANT_DASHES = {-1: (0, (2.5, 1)), 1: (0, (5, 1, 1, 1, 1, 1, 1, 1))}
_SPECIAL_LABELS = {"pretrained": "pretrained network", "optimum": "optimum $E[x_0|x_t]$",
                   "initial": "initial ($x_t$ itself)", "real": "real images"}  # fmt: skip


@dataclass(frozen=True)
class Look:
    """How a weighting is drawn; `hollow`: with other than its default arguments."""

    colour: str
    marker: str
    dashes: object
    hollow: bool = False

    @property
    def line(self):
        """Keyword arguments for `Axes.plot`."""
        outlined = self.hollow or self.marker == "x"
        line = {"color": self.colour, "linestyle": self.dashes, "marker": self.marker}
        line |= {"markersize": 10 if self.marker == "*" else 5.5, "markeredgewidth": 1.2 if outlined else 0.6}
        edge, face = self.colour if outlined else "white", "white" if self.hollow else self.colour
        return {**line, "markeredgecolor": edge, "markerfacecolor": face}


class ShownFigure(Figure):
    """A Figure that a notebook shows when it is a cell's value, with or without `%matplotlib inline`."""

    def _repr_png_(self):
        with style():
            picture = io.BytesIO()
            self.savefig(picture, format="png", metadata={"Software": None})
        width, height = (round(inches * 100) for inches in self.get_size_inches())
        return picture.getvalue(), {"width": width, "height": height}  # as shown; the picture has the saved one's dots


def style():
    """Within it, matplotlib draws in our style; the user's own settings are back afterwards. Also a decorator."""
    return matplotlib.style.context(_RC, after_reset=True)


def look(who):
    """The `Look` of a weighting, or of "pretrained", "optimum", "initial" or "real". Raises InputError for others.

    A weighting with other than the default arguments has the same hue and marker, but hollow, in a lighter shade where
    the arguments are above the defaults and a darker one where they are below, whatever else is drawn.
    """
    if who in _SPECIAL_LABELS:
        return Look(*_LOOKS[who])
    strategy = parse_strategy(who)
    colour, marker, dashes = _LOOKS[strategy.name]
    pairs = [(value, KNOWN[strategy.name][key].default) for key, value in strategy.arguments]
    shift = sum(0.7**i * (value - usual) / (abs(value) + abs(usual)) for i, (value, usual) in enumerate(pairs))
    if shift == 0:
        return Look(colour, marker, dashes)
    depth = 0.2 + 0.3 * min(abs(shift), 1)
    mixed = np.array(to_rgb(colour)) * (1 - depth) + depth * (shift > 0)
    return Look(to_hex(mixed.clip(0, 1)), marker, _VARIANT_DASHES[int(np.sign(shift))], hollow=True)


def label(who):
    """The name in figures: of a weighting, or of "pretrained", "optimum", "initial" or "real"."""
    return _SPECIAL_LABELS.get(who) or parse_strategy(who).label


def ordered(names):
    """The names, each once, in every figure's order: weightings as in `strategies.KNOWN`, then the special ones."""
    ranks = list(_LOOKS)
    return sorted(set(names), key=lambda name: (ranks.index(name.partition("(")[0]), len(name), name))


def new_figure(rows=1, columns=1, *, height, panels=None, **subplots):
    """(Figure, axes (rows, columns)), not registered with pyplot, so that nothing has to be closed.

    height: in inches, without the title. panels: how many of the axes are used; the others are removed.
    """
    figure = ShownFigure(figsize=(WIDTH, height + TITLE), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.06, wspace=0.03)
    axes = figure.subplots(rows, columns, squeeze=False, **subplots)
    for ax in axes.flat[panels:] if panels else ():
        ax.remove()
    return figure, axes


def panel_grid(keys, paint, *, height, base=0.5, columns=2, **subplots):
    """A Figure with a panel for each of `keys`, drawn by `paint(ax, key)`, and one legend below all of them.

    height: in inches, of one row of panels; base: of what is beside them.
    """
    columns = min(columns, len(keys))
    rows = -(-len(keys) // columns)
    figure, axes = new_figure(rows, columns, height=base + height * rows, panels=len(keys), **subplots)
    for ax, key in zip(axes.flat, keys, strict=False):
        paint(ax, key)
    legend_below(figure)
    return figure


def legend_below(figure):
    """One legend for all axes, below them, with each label once."""
    entries = {}
    for ax in figure.axes:
        for handle, text in zip(*ax.get_legend_handles_labels(), strict=True):
            entries.setdefault(text, handle)
    if entries:
        longest = max(map(len, entries))
        columns = min(len(entries), 4 if longest < 13 else 3 if longest < 20 or "$" in str([*entries]) else 2)
        figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=columns)


def log_axis(axis):
    """Make an axis logarithmic, with a few plain numbers as labels. Call it after drawing."""
    name = axis.axis_name
    getattr(axis.axes, f"set_{name}scale")("log")
    low, high = axis.get_view_interval()
    decades = np.log10(high / low)
    subs = next((subs for least, subs in _LABELLED.items() if decades > least), None)
    axis.set_major_locator(LogLocator(subs=subs, numticks=9) if subs else MaxNLocator(6, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(lambda value, _: f"{value:g}".replace("e-0", "e-").replace("e+0", "e"))
    axis.set_minor_formatter(NullFormatter())
    if decades > 4:
        axis.set_minor_locator(NullLocator())


def ticks_at(axis, values, limit=12):
    """Ticks at the measured values themselves, thinned to `limit`, without minor ones."""
    axis.set_major_locator(FixedLocator(sorted({*values}), nbins=limit))
    axis.set_major_formatter(lambda value, _: count(value))
    axis.set_minor_locator(NullLocator())


def count(number):
    """A count as short text: 500, 16k, 102.4M."""
    if number >= 1e6:
        return f"{number / 1e6:.4g}M"
    return f"{round(number / 1e3, 1):g}k" if number >= 1e4 else f"{number:g}"
