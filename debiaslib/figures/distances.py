"""Figures of notebook 06: distances between samples and real images, by sampling steps and by training. No torch."""

import pandas as pd
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter

from ..errors import InputError
from ..metrics.statistics import HIGHER_IS_BETTER, check_equal_n
from .lines import curves, dots, few, number_range, real_line, spread, summarise
from .registry import NothingToDraw, figure
from .style import count, log_axis, panel_grid

__all__ = ["METRICS"]

NOTEBOOK, TABLE = "06_fid_evaluation", "tables/distances-*.csv"
_FEATURES = {"minifaces": "MiniFaces features", "cifar10": "CIFAR-10 features", "pooled": "pooled pixels"}
METRICS = {  # column `metric`: panel title
    **{f"fd_{name}": f"Fréchet distance ({features})" for name, features in _FEATURES.items()},
    "fid": "FID (Inception-v3)",
    **{f"kid_{name}": f"Kernel distance ({features})" for name, features in _FEATURES.items()},
    "kid": "KID (Inception-v3)",
    "is": "Inception score",
    "precision": "Precision",
    "recall": "Recall",
}
SHARES = ("precision", "recall")
# Kernel distances of our own features are in the tables: in pooled pixels they are near 0, and in the other features
# they say what the Fréchet distance says.
DISTANCES = tuple(name for name in METRICS if name not in SHARES and not name.startswith("kid_"))
COLOURS = {
    "colour_energy": "Mean colour: energy distance\n($\\Delta E^*_{ab}$, lower is better)",
    "colour_w1": "Mean colour: Wasserstein distance\n($\\Delta E^*_{ab}$, lower is better)",
    "layout_energy": "4x4 layout: energy distance\n($\\Delta E^*_{ab}$, lower is better)",
}
IN_TRAINING = (*DISTANCES, "layout_energy")
SPREADS = {}
for _channel in ("red", "green", "blue"):
    SPREADS |= {f"mean_{_channel}": f"{_channel}: mean", f"spread_{_channel}": f"{_channel}: standard deviation"}


def load_distances(tables):
    """(rows of all distances-<run>.csv of EMA networks, those of real images or None)."""
    columns = "weighting seed sampler steps images_seen metric value se features n n_reference"
    frames = {path.stem: tables.frame(path, columns) for path in tables.find(TABLE)}
    real = frames.pop("distances-real", None)
    if not frames:
        wanted = "tables/distances-<run>.csv is missing in"
        raise InputError(f"{wanted} {tables.folder}; notebook 06_fid_evaluation makes it")
    table = pd.concat(list(frames.values()), ignore_index=True)
    for column in ("value", "se"):
        table[column] = pd.to_numeric(table[column], errors="coerce")
    table = table[table.network == "ema"].copy() if "network" in table else table
    check_equal_n(table)
    table["images_seen"] = table.images_seen.fillna(table.images_seen.max()).fillna(0)
    return table[table["value"].notna()], real


def by_steps(*metrics):
    """A loader of (facts, rows of these metrics by fully trained networks and the first sampler, real or None)."""

    def load(tables):
        table, real = load_distances(tables)
        # The sampler that the snapshots were sampled by too, or else the first in the table.
        sampler = table.sampler[table.images_seen.idxmin()]
        last = table.groupby(["weighting", "seed"]).images_seen.transform("max")
        return _of(table[(table.images_seen == last) & (table.sampler == sampler)], real, metrics)

    return load


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


@figure("Precision and recall by sampling steps", NOTEBOOK, TABLE, by_steps(*SHARES))
def precision_recall(table, real=None):
    """Precision (share of samples within the neighbourhoods of real images) and recall (the reverse) of {n} samples
    ({samplers}) against {n_reference} reference images, at a few numbers of sampling steps. Dots: {spread}, of the log
    odds; a share of 0 or 1 is drawn half an image from it.{real}
    """
    return dot_panels(table, real)


@figure("Colour shift by sampling steps", NOTEBOOK, TABLE, by_steps(*COLOURS))
def colour_by_steps(table, real=None):
    """How far the colours of {n} samples ({samplers}) are from those of the data, in Delta E (CIELAB). Energy distances
    are unbiased, and zero for equal colours. The Wasserstein distance is by how much the mean colour of an image must
    move, on average; at this number of images real ones are not at zero. Dots: {spread}.{real}
    """
    return dot_panels(table, real)


@figure("Mean colour of the samples by sampling steps", NOTEBOOK, TABLE, by_steps(*SPREADS))
def colour_spread(table, real=None):
    """Mean over images and standard deviation over images of the per-image mean of red, green and blue, in [-1, 1], of
    {n} samples ({samplers}) at a few numbers of sampling steps. Dots: {spread}.{real}
    """
    return dot_panels(table, real, size=0.8, sharex="col")


def dot_panels(table, real=None, size=1.0, **subplots):
    """A panel for each metric and its features, with dots and intervals at a few numbers of sampling steps.

    table: rows of distances-*.csv made by fully trained networks; real: rows of distances-real.csv, or None.
    """
    known, steps = [*METRICS, *COLOURS, *SPREADS], few(table.steps)
    # Precision and recall have one name in all features, so the features are part of a panel.
    keys = sorted(set(zip(table.features, table.metric, strict=True)), key=lambda k: (k[0], known.index(k[1])))

    def paint(ax, key):
        rows, at = _select(table, *key), _select(real, *key)
        _dot_panel(ax, rows, at, steps)
        ax.set_title(_title(*key))
        if ax.get_subplotspec().is_first_col():
            ax.set_yticks(range(len(steps)), [f"{s} steps" for s in steps])

    tall = size * (0.55 + len(steps) * max(0.5, 0.15 * table.weighting.nunique()))
    return panel_grid(keys, paint, height=tall, sharey=True, **subplots)


def _select(table, features, metric):
    return table[(table.features == features) & (table.metric == metric)] if table is not None else pd.DataFrame()


def _title(features, metric):
    if metric not in METRICS:
        return {**COLOURS, **SPREADS}[metric]
    name, _, network = METRICS[metric].partition(" (")
    better = "higher" if metric in HIGHER_IS_BETTER else "lower"
    network = network.rstrip(")") or {**_FEATURES, "inception": "Inception-v3"}.get(features, features)
    return f"{name} ({better} is better)\n{network}"


def _dot_panel(ax, rows, real, steps):
    scale = _scale(rows)
    rows = rows[rows.steps.isin(steps)]
    if scale == "logit":
        half = 0.5 / rows.n
        rows = rows.assign(value=rows["value"].clip(half, 1 - half), se=float("nan"))
    dots(ax, summarise(rows, ["weighting", "steps"], scale=scale), steps, "steps")
    if len(real):
        real_line(ax, real, scale, upright=True)
    if scale == "log":
        log_axis(ax.xaxis)
    elif scale == "logit":
        ax.set_xscale("logit")
        ax.xaxis.set_major_locator(FixedLocator([0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999]))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())


def _scale(rows):
    """Logarithmic for a distance; an unbiased estimate of one may fall below 0, and then all are drawn linearly."""
    metric = rows.metric.iloc[0]
    if metric in SHARES:
        return "logit"
    linear = metric in HIGHER_IS_BETTER or metric in SPREADS or (rows["value"] <= 0).any()
    return "linear" if linear else "log"


def load_by_images(tables):
    """The same of those numbers of steps at which the networks were measured during training."""
    table, real = load_distances(tables)
    table = table[table.groupby("steps").images_seen.transform("nunique") > 1]
    if table.empty:
        raise NothingToDraw("The networks of this experiment were judged at the end of their training alone.")
    return _of(table, real, IN_TRAINING)


@figure("Distance to real images in the course of training", NOTEBOOK, TABLE, load_by_images)
def distance_by_images(table, real=None):
    """Distance between {n} samples of the EMA weights ({samplers}) and {n_reference} reference images against images
    seen in training. Colours: their shift in Delta E (CIELAB), unbiased, zero for equal colours. Lines: {spread}.{real}
    """

    def paint(ax, key):
        features, metric, steps = key
        rows, at = _select(table[table.steps == steps], features, metric), _select(real, features, metric)
        scale = _scale(rows)
        curves(ax, summarise(rows, ["weighting", "images_seen"], scale=scale), "images_seen")
        if len(at):
            real_line(ax, at, scale)
        if scale == "log":
            log_axis(ax.yaxis)
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.xaxis.set_major_formatter(lambda value, _: count(value))
        ax.set_xlim(left=0)
        ax.set(title=f"{_title(features, metric)}, {steps:g} steps", xlabel="images seen in training")

    keys = set(zip(table.features, table.metric, table.steps, strict=True))
    keys = sorted(keys, key=lambda k: (IN_TRAINING.index(k[1]), k))
    return panel_grid(keys, paint, height=2.5, base=0.6)
