"""Figures of the oracle swap: which part of a network's error spoils samples, that above T* or that below? No torch."""

import pandas as pd

from .facts import listed, seed_list
from .grids import Row, image_grid
from .lines import curve, summarise
from .registry import NothingToDraw, figure
from .style import label, legend_below, log_axis, look, new_figure, ordered

NOTEBOOK = "03_mse_step_curves"
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
    seeds = table.seed.unique()
    spread = f"mean over {seed_list(seeds)}; bands: 95 % t-intervals over them." if len(seeds) > 1 else ""
    n = f"{int(table.n.max()):,}" if "n" in table else "equally many"
    return {"steps": int(table.steps.max()), "n": n, "spread": spread or f"{seed_list(seeds)}, no error bars."}, table


@figure(
    "oracle_swap", NOTEBOOK, "tables/oracle_swap.csv", load_swap, extra=True,
    title="Which part of the error spoils the samples?",
    caption="""Distance from the data of samples drawn by one denoiser at t > T* and another one at t <= T*, against T*,
    {steps} sampling steps, {n} samples. Left: a network with the exact optimum in its place above (solid) or below
    (broken) T*; right: the networks of two weightings crossed, in the colour of the one below. Horizontal: one denoiser
    at all t. Lines: {spread}""",
)  # fmt: skip
def draw_swap(table):
    """Rows: a distance of colours and one of features; columns: each arm with the optimum, and both arms crossed."""
    metrics = [found for group in _MEASURES for found in [_first(group, table)] if found]
    if not metrics:
        raise NothingToDraw("Of the oracle swap neither a colour distance nor one of features was measured.")
    drawn, axes = new_figure(len(metrics), 2, height=0.9 + 2.5 * len(metrics), sharex=True, sharey="row")
    for line, (metric, name) in zip(axes, metrics, strict=True):
        rows = table[table.metric == metric]
        scale = "log" if (rows["value"] > 0).all() else "linear"
        found = summarise(rows.assign(se=float("nan")), ["above", "below", "t_star"], scale=scale)
        _panels(line, found)
        line[0].set_ylabel(name)
        if scale == "log":
            log_axis(line[0].yaxis)
    axes[0, 0].set_title("with the optimum")
    axes[0, 1].set_title("arms crossed")
    for ax in axes[-1]:
        ax.set_xlabel("T*")
    legend_below(drawn, axes)
    return drawn


def _first(group, table):
    return next(((metric, name) for metric, name in group.items() if (table.metric == metric).any()), None)


def _panels(axes, found):
    swapped, alone = found[found.t_star >= 0], found[found.t_star < 0]
    for above, below in sorted(set(zip(swapped.above, swapped.below, strict=True))):
        rows = swapped[(swapped.above == above) & (swapped.below == below)]
        crossed = _OPTIMUM not in (above, below)
        who = below if crossed or above == _OPTIMUM else above
        name = f"{label(above)} above, {label(below)} below".replace(label(_OPTIMUM), _OPTIMUM)
        dashes = (0, (1.2, 1.2)) if crossed else "-" if above == _OPTIMUM else (0, (5, 2))
        curve(axes[int(crossed)], rows, "t_star", who, label=name, linestyle=dashes)
    for who in ordered(alone.above):
        for ax in axes:
            line = {"color": look(who).colour, "linewidth": 1.1, "linestyle": look("initial").dashes}
            name = label(who).partition(" $")[0]
            ax.axhline(alone[alone.above == who]["mean"].iloc[0], **line, label=f"{name} alone")


def load_swap_samples(tables):
    arrays = tables.arrays(*tables.find("tables/oracle_swap_samples.npz"), "names t_star images")
    shown = {part for name in arrays["names"] for part in _pair(name)} - {_OPTIMUM}
    return {"weightings": f"{listed(shown)} and the optimum"}, arrays


@figure(
    "oracle_swap_samples", NOTEBOOK, "tables/oracle_swap_samples.npz", load_swap_samples, extra=True,
    title="Samples of the oracle swap",
    caption="""A sample of {weightings}, drawn by one denoiser at t > T* and another one at t <= T*. All start from the
    same noise. The first image, not chosen; no error bars.""",
)  # fmt: skip
def draw_swap_samples(arrays):
    """A row for each swap, a column for each T*. arrays: names (M,) "above | below", t_star (K,), images uint8."""
    rows = []
    for name, swapped in zip(arrays["names"], arrays["images"], strict=True):
        above, below = _pair(name)
        if above == below:
            continue
        who = below if above == _OPTIMUM else above
        places = ((above, "above"), (below, "below"))
        text = "\n".join(f"{label(one).partition(' $')[0]} {where}" for one, where in places)
        rows.append(Row(list(swapped[:, 0]), "", look(who).colour, text))
    return image_grid(rows, [f"{t}" for t in arrays["t_star"]], "T*")


def _pair(name):
    return tuple(str(name).split(" | "))
