"""Figures of the oracle swap: which part of a network's error spoils samples, that above T* or that below? No torch."""

from .distances import COLOURS, METRICS
from .grids import Row, image_grid
from .lines import curve, listed, spread, summarise
from .mse_curves import NOTEBOOK
from .one_step import short
from .registry import NothingToDraw, figure
from .style import log_axis, look, panel_grid

_OPTIMUM = "optimum"
_MEASURES = (  # of each the first that was measured
    ("colour_energy", "layout_energy"),
    ("fid", "fd_cifar10", "fd_minifaces", "fd_pooled"),
)


def load_swap(tables):
    """(facts, rows of oracle_swap.csv of single networks at the largest number of steps)."""
    table = tables.read(*tables.find("tables/oracle_swap.csv"), "above below t_star seed steps metric value n")
    table = table[table.steps == table.steps.max()]
    over = spread(table, ", no error bars", "steps")
    return {"steps": int(table.steps.max()), "n": f"{table.n.max():,}", "spread": over}, table


@figure("Which part of the error spoils the samples?", NOTEBOOK, "tables/oracle_swap.csv", load_swap)
def oracle_swap(table):
    """Distance from the data of samples drawn by one denoiser at t > T* and another one at t <= T*, against T*, {steps}
    sampling steps, {n} samples. Filled markers: the exact optimum stands in for the network above T*; hollow markers:
    below it; two-coloured markers: the edge has the network above T*, the face the one below. Horizontal lines: one
    denoiser at all t. Markers: {spread}.
    """
    metrics = [next((m for m in group if (table.metric == m).any()), None) for group in _MEASURES]
    if not any(metrics):
        raise NothingToDraw("Of the oracle swap neither a colour distance nor one of features was measured.")

    def paint(ax, metric):
        rows = table[table.metric == metric].assign(se=float("nan"))
        scale = "log" if (rows["value"] > 0).all() else "linear"
        found = summarise(rows, ["above", "below", "t_star"], scale=scale)
        swapped = found[found.t_star >= 0]
        times = sorted(swapped.t_star.unique())
        for i, ((above, below), part) in enumerate(swapped.groupby(["above", "below"])):
            who, name = below if above == _OPTIMUM else above, f"{short(above)} above, {short(below)} below"
            edge = {"markerfacecolor": "white", "markeredgecolor": look(who).colour, "linestyle": (0, (5, 2))}
            if _OPTIMUM not in (above, below):
                edge |= {"linestyle": ":", "markerfacecolor": look(below).colour}
            if len(times) == 1:  # bars in place of bands: side by side
                part = part.assign(t_star=part.t_star + 5 * (i - 2.5))
            curve(ax, part, "t_star", who, label=name, **({"linestyle": "-"} if above == _OPTIMUM else edge))
        for who, part in found[found.t_star < 0].groupby("above"):
            line = {"color": look(who).colour, "linewidth": 1.1, "linestyle": look("initial").dashes}
            ax.axhline(part["mean"].item(), **line, label=f"{short(who)} alone")
        if scale == "log":
            log_axis(ax.yaxis)
        ax.set(title={**METRICS, **COLOURS}[metric].replace(" (", "\n("), xlabel="T*", xticks=times)

    return panel_grid(list(filter(None, metrics)), paint, height=2.8)


def load_swap_samples(tables):
    arrays = tables.read(*tables.find("tables/oracle_swap_samples.npz"), "names t_star images")
    shown = {part for name in arrays["names"] for part in str(name).split(" | ")} - {_OPTIMUM}
    return {"weightings": f"{listed(shown)} and the optimum"}, arrays


@figure("Samples of the oracle swap", NOTEBOOK, "tables/oracle_swap_samples.npz", load_swap_samples)
def oracle_swap_samples(arrays):
    """A sample of {weightings}, drawn by one denoiser at t > T* and another one at t <= T*. All start from the same
    noise. The first image, not chosen; no error bars.
    """
    rows = []
    for name, swapped in zip(arrays["names"], arrays["images"], strict=True):
        above, below = str(name).split(" | ")
        if above != below:
            who = below if above == _OPTIMUM else above
            name = f"{short(above)} above\n{short(below)} below"
            rows.append(Row(list(swapped[:, 0]), name, look(who).colour, gap=True))
    return image_grid(rows, [f"{t}" for t in arrays["t_star"]], "T*")
