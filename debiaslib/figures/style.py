"""One style for every figure: rcParams, and one fixed colour, marker and line for each weighting. Imports no torch.

Colours are Okabe and Ito's, told apart by readers with any colour vision; each weighting also has its own marker and
dashes. All are keyed by the weighting's name, so one that is missing from an experiment never shifts another's.
"""

import io
from contextlib import contextmanager
from dataclasses import dataclass

import matplotlib
import numpy as np
import seaborn
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from ..diffusion.strategies import KNOWN, parse_strategy

__all__ = ["WIDTH", "Look", "ShownFigure", "label", "look", "new_figure", "note", "ordered", "style"]

WIDTH = 9.0  # inches; at 100 dpi the width of a notebook's column

_RC = {
    **seaborn.axes_style("ticks"),
    "font.family": ["DejaVu Sans"],  # ships with matplotlib: the same letters, hence the same bytes, on every machine
    "font.size": 10,
    "figure.dpi": 100,
    "savefig.dpi": 150,
    "svg.hashsalt": "debiaslib",  # else its names are random, and no two drawings the same
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.labelsize": 10,
    "axes.labelcolor": "0.15",
    "axes.edgecolor": "0.55",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "0.92",
    "grid.linewidth": 0.8,
    "xtick.color": "0.55",
    "ytick.color": "0.55",
    "xtick.labelcolor": "0.2",
    "ytick.labelcolor": "0.2",
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "xtick.major.size": 3.5,
    "ytick.major.size": 3.5,
    "lines.linewidth": 1.7,
    "legend.fontsize": 9.5,
    "legend.frameon": False,
    "legend.handlelength": 3.2,
    "pdf.fonttype": 42,
}

# name: colour, marker, dashes. The yellow is darker than Okabe and Ito's, which is faint as a line on white.
_LOOKS = {
    "constant": ("#D55E00", "o", "--"),
    "debiased": ("#0072B2", "s", "-"),
    "inverse_snr": ("#56B4E9", "^", (0, (6, 1.5, 1.5, 1.5))),
    "p2": ("#009E73", "D", "-."),
    "min_snr": ("#E69F00", "v", (0, (1.2, 1.2))),
    "soft_min_snr": ("#A89500", "P", (0, (4, 1.2, 1.2, 1.2, 1.2, 1.2))),
    "max_snr": ("#CC79A7", "X", (0, (8, 2))),
    "edm": ("#6A3D9A", "p", (0, (3, 1))),
    "sigmoid": ("#882255", "h", (0, (9, 1.5, 3, 1.5))),
    "vlb": ("#8C510A", "<", (0, (1.2, 2.4))),
    "pretrained": ("#117733", "d", "-"),
    "optimum": ("#000000", "*", "-"),
    "initial": ("#7F7F7F", "x", ":"),
    "real": ("#7F7F7F", "", (0, (7, 2))),
}
_VARIANT_DASHES = {-1: (0, (2.5, 1)), 1: (0, (5, 1, 1, 1, 1, 1, 1, 1))}
_SPECIAL_LABELS = {
    "pretrained": "pretrained network",
    "optimum": "optimum $E[x_0|x_t]$",
    "initial": "initial ($x_t$ itself)",
    "real": "real images",
}


@dataclass(frozen=True)
class Look:
    """How a weighting is drawn. `hollow` markers are those of a variant with other arguments than the default ones."""

    colour: str
    marker: str
    dashes: object
    hollow: bool = False

    @property
    def line(self):
        """Keyword arguments for `Axes.plot`."""
        outlined = self.hollow or self.marker == "x"
        return {
            "color": self.colour,
            "marker": self.marker,
            "linestyle": self.dashes,
            "markersize": 10 if self.marker == "*" else 5.5,
            "markerfacecolor": "white" if self.hollow else self.colour,
            "markeredgecolor": self.colour if outlined else "white",
            "markeredgewidth": 1.2 if outlined else 0.6,
        }


class ShownFigure(Figure):
    """A Figure that a notebook shows when it is a cell's value, with or without `%matplotlib inline`."""

    def _repr_png_(self):
        with style():
            picture = io.BytesIO()
            self.savefig(picture, format="png", metadata={"Software": None})
        width, height = (round(inches * 100) for inches in self.get_size_inches())
        return picture.getvalue(), {"width": width, "height": height}  # as shown; the picture has the saved one's dots


@contextmanager
def style():
    """Within it, matplotlib draws in our style; the user's own settings are back afterwards. Also a decorator."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_RC)
        yield


def look(who):
    """The `Look` of a weighting, or of "pretrained", "optimum", "initial" or "real".

    Raises InputError for an unknown one. Variants share hue and marker: arguments above the default ones give a lighter
    shade, below them a darker one, and both other dashes and hollow markers; it depends on the arguments alone, not on
    what else is drawn.
    """
    if who in _SPECIAL_LABELS:
        return Look(*_LOOKS[who])
    strategy = parse_strategy(who)
    colour, marker, dashes = _LOOKS[strategy.name]
    shift = 0.0
    for i, (key, value) in enumerate(strategy.arguments):
        default = KNOWN[strategy.name][key].default
        shift += 0.7**i * (value - default) / (abs(value) + abs(default))
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
    names, ranks = set(names), {name: i for i, name in enumerate(_LOOKS)}

    def rank(name):
        strategy = None if name in _SPECIAL_LABELS else parse_strategy(name)
        return (ranks[strategy.name], strategy.arguments) if strategy else (ranks[name], ())

    return sorted(names, key=rank)


def new_figure(rows=1, columns=1, *, height, width=WIDTH, **subplots):
    """(Figure, axes (rows, columns)), known to no pyplot, so that nothing has to be closed. Sizes in inches."""
    figure = ShownFigure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.06, wspace=0.03)
    return figure, figure.subplots(rows, columns, squeeze=False, **subplots)


def legend_below(figure, axes, **more):
    """One legend for all `axes` under the figure, where it hides no data; entries of the same label appear once."""
    entries = {}
    for ax in np.ravel(axes):
        for handle, text in zip(*ax.get_legend_handles_labels(), strict=True):
            entries.setdefault(text, handle)
    if entries:
        columns = min(len(entries), 5 if len(entries) != 6 else 3)
        figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=columns, **more)


@style()
def note(text):
    """A figure that says in words why there is nothing to draw."""
    figure, [[ax]] = new_figure(height=1.2)
    ax.axis("off")
    ax.text(0.5, 0.5, text, ha="center", va="center", color="0.3", wrap=True, transform=ax.transAxes)
    return figure


def log_axis(axis):
    """Make an axis logarithmic, with plain numbers as labels and only as many as are read. Call it after drawing."""
    name = axis.axis_name
    getattr(axis.axes, f"set_{name}scale")("log")
    low, high = axis.get_view_interval()
    decades = np.log10(high / low)
    subs = (1.0,) if decades > 2.5 else (1.0, 2.0, 5.0) if decades > 0.7 else tuple(np.arange(1.0, 10.0))
    axis.set_major_locator(LogLocator(subs=subs, numticks=9))
    axis.set_major_formatter(FuncFormatter(_plain))
    axis.set_minor_formatter(NullFormatter())
    if decades > 4:
        axis.set_minor_locator(NullLocator())


def _plain(value, _position=None):
    if 1e-3 <= value < 1e5 or value <= 0:
        return f"{value:g}"
    exponent = int(np.floor(np.log10(value) + 1e-9))
    factor = value / 10.0**exponent
    return f"$10^{{{exponent}}}$" if abs(factor - 1) < 1e-6 else f"${factor:.2g}\\times10^{{{exponent}}}$"


def ticks_at(axis, values, limit=12):
    """Ticks at the measured values themselves, thinned to `limit`, without minor ones."""
    values = sorted({float(v) for v in values})
    values = values if len(values) <= limit else values[:: -(-len(values) // limit)]
    axis.set_ticks(values, labels=[count(v) for v in values])
    axis.set_minor_locator(NullLocator())


def count(number):
    """A count as short text: 500, 16k, 102.4M."""
    for size, letter in ((1e6, "M"), (1e4, "k")):
        if number >= size:
            return f"{number / (size if letter == 'M' else 1e3):.4g}{letter}"
    return f"{number:g}"
