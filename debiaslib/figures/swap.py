"""Figures of the oracle swap: which part of a network's error spoils samples, that above T* or that below? No torch."""

import pandas as pd

from .grids import Row, image_grid
from .lines import curve, listed, spread, summarise
from .mse_curves import NOTEBOOK
from .one_step import short
from .registry import NothingToDraw, figure
from .style import label, legend_below, log_axis, look, new_figure, ordered

_OPTIMUM = "optimum"
_MEASURES = (  # of each the first that was measured
    {"colour_energy": "colour: energy distance", "layout_energy": "4x4 colours: energy distance"},
    {"fid": "FID", "fd_cifar10": "fd_cifar10", "fd_minifaces": "fd_minifaces", "fd_pooled": "fd_pooled"},
)


def load_swap(tables):
    """(facts, rows of oracle_swap.csv of single networks at the largest number of steps)."""
    table = tables.frame(*tables.find("tables/oracle_swap.csv"), "above below t_star seed steps metric value")
    table = table[table.seed.astype(str) != "mean"]  # the answer of all seeds' networks together
    table = table[table.steps == table.steps.max()].assign(seed=pd.to_numeric(table.seed))
    n = f"{int(table.n.max()):,}" if "n" in table else "equally many"
    return {"steps": int(table.steps.max()), "n": n, "spread": spread(table, ", no error bars", "steps")}, table


@figure("Which part of the error spoils the samples?", NOTEBOOK, "tables/oracle_swap.csv", load_swap, extra=True)
def oracle_swap(table):
    """Distance from the data of samples drawn by one denoiser at t > T* and another one at t <= T*, against T*, {steps}
    sampling steps, {n} samples. Left: a network with the exact optimum in its place above (solid) or below (broken) T*;
    right: the networks of two weightings crossed, in the colour of the one below. Horizontal: one denoiser at all t.
    Lines: {spread}.
    """
    found = [next((m for m in group.items() if (table.metric == m[0]).any()), None) for group in _MEASURES]
    metrics = [metric for metric in found if metric]
    if not metrics:
        raise NothingToDraw("Of the oracle swap neither a colour distance nor one of features was measured.")
    drawn, axes = new_figure(len(metrics), 2, height=0.9 + 2.5 * len(metrics), sharex=True, sharey="row")
    for line, (metric, name) in zip(axes, metrics, strict=True):
        rows = table[table.metric == metric]
        scale = "log" if (rows["value"] > 0).all() else "linear"
        _panels(line, summarise(rows.assign(se=float("nan")), ["above", "below", "t_star"], scale=scale))
        line[0].set_ylabel(name)
        if scale == "log":
            log_axis(line[0].yaxis)
    for top, bottom, title in zip(axes[0], axes[-1], ("with the optimum", "arms crossed"), strict=True):
        top.set_title(title)
        bottom.set_xlabel("T*")
    legend_below(drawn)
    return drawn


def _panels(axes, found):
    alone = found[found.t_star < 0]
    for (above, below), rows in found[found.t_star >= 0].groupby(["above", "below"]):
        crossed = _OPTIMUM not in (above, below)
        who = below if crossed or above == _OPTIMUM else above
        name = f"{label(above)} above, {label(below)} below".replace(label(_OPTIMUM), _OPTIMUM)
        dashes = (0, (1.2, 1.2)) if crossed else "-" if above == _OPTIMUM else (0, (5, 2))
        curve(axes[int(crossed)], rows, "t_star", who, label=name, linestyle=dashes)
    for who in ordered(alone.above):
        line = {"color": look(who).colour, "linewidth": 1.1, "linestyle": look("initial").dashes}
        for ax in axes:
            ax.axhline(alone[alone.above == who]["mean"].iloc[0], **line, label=f"{short(who)} alone")


def load_swap_samples(tables):
    arrays = tables.arrays(*tables.find("tables/oracle_swap_samples.npz"), "names t_star images")
    shown = {part for name in arrays["names"] for part in str(name).split(" | ")} - {_OPTIMUM}
    return {"weightings": f"{listed(shown)} and the optimum"}, arrays


@figure("Samples of the oracle swap", NOTEBOOK, "tables/oracle_swap_samples.npz", load_swap_samples, extra=True)
def oracle_swap_samples(arrays):
    """A sample of {weightings}, drawn by one denoiser at t > T* and another one at t <= T*. All start from the same
    noise. The first image, not chosen; no error bars.
    """
    rows = []
    for name, swapped in zip(arrays["names"], arrays["images"], strict=True):
        above, below = str(name).split(" | ")
        if above != below:
            who = below if above == _OPTIMUM else above
            rows.append(
                Row(list(swapped[:, 0]), f"{short(above)} above\n{short(below)} below", look(who).colour, gap=True)
            )
    return image_grid(rows, [f"{t}" for t in arrays["t_star"]], "T*")
