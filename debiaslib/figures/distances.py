"""Figures of notebook 06: distances between samples and real images, by sampling steps and by training. No torch."""

import pandas as pd
from matplotlib.ticker import MaxNLocator

from ..metrics.statistics import HIGHER_IS_BETTER, check_equal_n
from .lines import curves, dots, few, number_range, real_line, spread, summarise
from .registry import NothingToDraw, figure
from .style import count, log_axis, panel_grid

NOTEBOOK, TABLE = "06_fid_evaluation", "tables/distances-*-s*.csv"
_FEATURES = {"minifaces": "MiniFaces features", "cifar10": "CIFAR-10 features", "pooled": "pooled pixels"}
METRICS = {  # column `metric`: its name, and the features
    **{f"fd_{name}": f"Fréchet distance ({features})" for name, features in _FEATURES.items()},
    "fid": "FID (Inception-v3)",
    **{f"kid_{name}": f"Kernel distance ({features})" for name, features in _FEATURES.items()},
    "kid": "KID (Inception-v3)",
    "is": "Inception score (Inception-v3)",
    "precision": "Precision",
    "recall": "Recall",
}
# The others are in the tables. Kernel distances of our own features are near 0 in pooled pixels, and in the other
# features say what the Fréchet distance says.
DISTANCES = ("fd_minifaces", "fd_cifar10", "fd_pooled", "fid", "kid", "is")
COLOURS = {
    "colour_energy": "Mean colour: energy distance\n($\\Delta E^*_{ab}$, lower is better)",
    "colour_w1": "Mean colour: Wasserstein distance\n($\\Delta E^*_{ab}$, lower is better)",
    "layout_energy": "4x4 layout: energy distance\n($\\Delta E^*_{ab}$, lower is better)",
}
IN_TRAINING = (*DISTANCES, "layout_energy")


def load_distances(tables):
    """(rows of all distances-<run>.csv of EMA networks by the first sampler, those of real images or None)."""
    columns = "weighting network seed sampler steps images_seen metric value se features n n_reference"
    table = pd.concat([tables.read(path, columns) for path in tables.find(TABLE)], ignore_index=True)
    path = tables.folder / "tables" / "distances-real.csv"
    real = tables.read(path, columns) if path.exists() else None
    table[["value", "se"]] = table[["value", "se"]].apply(pd.to_numeric, errors="coerce")
    table = check_equal_n(table[table.network == "ema"])
    seen = table.images_seen.fillna(table.images_seen.max()).fillna(0)
    table = table.assign(images_seen=seen)[table["value"].notna()]
    # The sampler that the snapshots were sampled by too, or else the first in the table.
    return table[table.sampler.isin([table.sampler[table.images_seen.idxmin()]])], real


def by_steps(*metrics):
    """A loader of (facts, rows of these metrics by fully trained networks, real or None)."""

    def load(tables):
        table, real = load_distances(tables)
        last = table.groupby(["weighting", "seed"]).images_seen.transform("max")
        return _of(table[table.images_seen == last], real, metrics)

    return load


def load_by_images(tables):
    """The same of those numbers of steps at which the networks were measured during training."""
    table, real = load_distances(tables)
    table = table[table.groupby("steps").images_seen.transform("nunique") > 1]
    if table.empty:
        raise NothingToDraw("The networks of this experiment were judged at the end of their training alone.")
    return _of(table, real, IN_TRAINING)


def _of(table, real, metrics):
    table = table[table.metric.isin(metrics)]
    if table.empty:
        raise NothingToDraw(f"Not measured in this experiment: {', '.join(metrics)}.")
    alone = "; intervals, where drawn: 95 % from the metric's own standard error, not between seeds"
    grey = " Grey: other real images in the place of samples, n as in their table, what a perfect sampler would get."
    facts = {
        "spread": spread(table, alone),
        "n": number_range(table.n),
        "n_reference": number_range(table.n_reference),
        "samplers": ", ".join(sorted(table.sampler.dropna().astype(str).unique())),
        "real": grey if real is not None else " No real images were measured for comparison.",
    }
    return facts, table, real


@figure("Distance to real images by sampling steps", NOTEBOOK, TABLE, by_steps(*DISTANCES))
def distance_by_steps(table, real=None):
    """Distance between {n} samples ({samplers}) and {n_reference} reference images at a few numbers of sampling steps.
    Dots: {spread}.{real}
    """
    return dot_panels(table, real)


@figure("Colour shift by sampling steps", NOTEBOOK, TABLE, by_steps(*COLOURS))
def colour_by_steps(table, real=None):
    """How far the colours of {n} samples ({samplers}) are from those of the data, in Delta E (CIELAB). Energy distances
    are unbiased, and zero for equal colours. The Wasserstein distance is how far the mean colour of an image must move,
    on average; real images are not at zero. A logarithmic axis has no place for 0 and below. Dots: {spread}.{real}
    """
    return dot_panels(table, real)


def dot_panels(table, real=None):
    """A panel for each metric, with dots and intervals at a few numbers of sampling steps.

    table: rows of distances-*.csv made by fully trained networks; real: rows of distances-real.csv, or None.
    """
    steps = few(table.steps)
    table = table[table.steps.isin(steps)]

    def paint(ax, metric):
        rows = table[table.metric == metric]
        scale = _scale(rows)
        dots(ax, summarise(rows, ["weighting", "steps"], scale=scale), steps, "steps")
        _finish(ax, ax.xaxis, metric, real, scale)
        if ax.get_subplotspec().is_first_col():
            ax.set_yticks(range(len(steps)), [f"{s} steps" for s in steps])

    tall = 0.55 + len(steps) * max(0.5, 0.15 * table.weighting.nunique())
    shown = [metric for metric in (*DISTANCES, *COLOURS) if (table.metric == metric).any()]
    return panel_grid(shown, paint, height=tall, sharey=True)


def _finish(ax, axis, metric, real, scale):
    """The value of real images along the axis of values, its scale, and the title of the panel."""
    rows = real[real.metric == metric] if real is not None else ()
    if len(rows):
        real_line(ax, rows, scale, upright=axis is ax.xaxis)
    if scale == "log":
        log_axis(axis)
    name, _, features = METRICS.get(metric, "").partition(" (")
    better = "higher" if metric in HIGHER_IS_BETTER else "lower"
    ax.set_title(COLOURS.get(metric) or f"{name} ({better} is better)\n{features.rstrip(')')}")


def _scale(rows):
    """Logarithmic for a distance; an unbiased estimate of one may fall below 0, and then all are drawn linearly."""
    return "linear" if rows.metric.iloc[0] in HIGHER_IS_BETTER or (rows["value"] <= 0).any() else "log"


@figure("Distance to real images in the course of training", NOTEBOOK, TABLE, load_by_images)
def distance_by_images(table, real=None):
    """Distance between {n} samples of the EMA weights ({samplers}) and {n_reference} reference images against images
    seen in training. Colours: their shift in Delta E (CIELAB), unbiased, zero for equal colours. Lines: {spread}.{real}
    """

    def paint(ax, key):
        metric, steps = key
        rows = table[(table.metric == metric) & (table.steps == steps)]
        scale = _scale(rows)
        curves(ax, summarise(rows, ["weighting", "images_seen"], scale=scale), "images_seen")
        _finish(ax, ax.yaxis, metric, real, scale)
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.xaxis.set_major_formatter(lambda value, _: count(value))
        ax.set_xlim(left=0)
        ax.set(title=f"{ax.get_title('left')}, {steps:g} steps", xlabel="images seen in training")

    keys = set(zip(table.metric, table.steps, strict=True))
    keys = sorted(keys, key=lambda k: (IN_TRAINING.index(k[0]), k))
    return panel_grid(keys, paint, height=2.5, base=0.6)
