"""Figures of notebook 06: distances between samples and real images, by sampling steps and by training. No torch."""

import pandas as pd
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter

from ..errors import InputError
from ..metrics.statistics import HIGHER_IS_BETTER, check_equal_n
from .facts import fewer_seeds, number_range
from .lines import curve, dots, few, real_line, summarise
from .registry import NothingToDraw, figure
from .style import count, legend_below, log_axis, new_figure, ordered

__all__ = ["METRICS"]

NOTEBOOK = "06_fid_evaluation"
METRICS = {  # column `metric`: panel title
    "fd_minifaces": "Fréchet distance (MiniFaces features)",
    "fd_cifar10": "Fréchet distance (CIFAR-10 features)",
    "fd_pooled": "Fréchet distance (pooled pixels)",
    "fid": "FID (Inception-v3)",
    "kid_minifaces": "Kernel distance (MiniFaces features)",
    "kid_cifar10": "Kernel distance (CIFAR-10 features)",
    "kid_pooled": "Kernel distance (pooled pixels)",
    "kid": "KID (Inception-v3)",
    "is": "Inception score",
    "precision": "Precision",
    "recall": "Recall",
}
SHARES = ("precision", "recall")
DISTANCES = tuple(name for name in METRICS if name not in SHARES)
COLOURS = {
    "colour_energy": "Mean colour: energy distance\n($\\Delta E^*_{ab}$, lower is better)",
    "colour_w1": "Mean colour: Wasserstein distance\n($\\Delta E^*_{ab}$, lower is better)",
    "layout_energy": "4x4 layout: energy distance\n($\\Delta E^*_{ab}$, lower is better)",
}
_CHANNELS = ("red", "green", "blue")
_STATISTICS = {"mean": "mean", "spread": "standard deviation"}
SPREADS = tuple(f"{what}_{channel}" for what in _STATISTICS for channel in _CHANNELS)
_FEATURES = {
    "minifaces": "MiniFaces features",
    "cifar10": "CIFAR-10 features",
    "pooled": "pooled pixels",
    "inception": "Inception-v3",
}


def load_distances(tables):
    """(rows of all distances-<run>.csv of EMA networks, those of real images or None)."""
    paths = tables.find("tables/distances-*.csv")
    columns = "weighting seed sampler steps images_seen metric value se features n n_reference"
    frames = {path.stem: tables.frame(path, columns) for path in paths}
    real = frames.pop("distances-real", None)
    if not frames:
        raise InputError(
            f"tables/distances-<run>.csv is missing in {tables.folder}; notebook 06_fid_evaluation makes it"
        )
    table = pd.concat(list(frames.values()), ignore_index=True)
    for column in ("value", "se"):
        table[column] = pd.to_numeric(table[column], errors="coerce")
    table = table[table.network == "ema"].copy() if "network" in table else table
    check_equal_n(table)
    table["images_seen"] = table.images_seen.fillna(table.images_seen.max()).fillna(0)
    return table[table["value"].notna()], real


def load_by_steps(tables, metrics):
    """(facts, rows of these metrics by fully trained networks and the experiment's first sampler, real or None)."""
    table, real = load_distances(tables)
    # The sampler that the snapshots were sampled by too, or else the first in the table.
    sampler = table.sampler[table.images_seen.idxmin()]
    last = table.groupby(["weighting", "seed"]).images_seen.transform("max")
    table = table[(table.images_seen == last) & (table.sampler == sampler)]
    return _of(table, real, metrics)


def _of(table, real, metrics):
    table = table[table.metric.isin(metrics)]
    if table.empty:
        raise NothingToDraw(f"Not measured in this experiment: {', '.join(metrics)}.")
    seeds = table.seed.nunique()
    spread = "one training seed; intervals, where drawn: 95 % from the metric's own standard error, not between seeds"
    if seeds > 1:
        spread = f"mean over {seeds} training seeds, intervals 95 % t-intervals over them"
        spread += fewer_seeds(table, "weighting")
    grey = " Grey: other real images in the place of samples, n as in their table, what a perfect sampler would get."
    facts = {
        "spread": spread,
        "n": number_range(table.n),
        "n_reference": number_range(table.n_reference),
        "samplers": ", ".join(sorted(table.sampler.dropna().astype(str).unique())),
        "real": grey if real is not None else " No real images were measured for comparison.",
    }
    return facts, table, real


@figure(
    "distance_by_steps", NOTEBOOK, "tables/distances-*.csv", lambda tables: load_by_steps(tables, DISTANCES),
    title="Distance to real images by sampling steps",
    caption="""Distance between {n} samples ({samplers}) and {n_reference} reference images at a few numbers of sampling
    steps. Dots: {spread}.{real}""",
)  # fmt: skip
@figure(
    "precision_recall", NOTEBOOK, "tables/distances-*.csv", lambda tables: load_by_steps(tables, SHARES),
    title="Precision and recall by sampling steps",
    caption="""Precision (share of samples within the neighbourhoods of real images) and recall (the reverse) of {n}
    samples ({samplers}) against {n_reference} reference images, at a few numbers of sampling steps. Dots: {spread}, of
    the log odds; a share of 0 or 1 is drawn half an image from it.{real}""",
)  # fmt: skip
@figure(
    "colour_by_steps", NOTEBOOK, "tables/distances-*.csv", lambda tables: load_by_steps(tables, tuple(COLOURS)),
    title="Colour shift by sampling steps",
    caption="""How far the colours of {n} samples ({samplers}) are from those of the data, in Delta E (CIELAB). Energy
    distances are unbiased, and zero for equal colours. The Wasserstein distance is by how much the mean colour of an
    image must move, on average; at this number of images real ones are not at zero. Dots: {spread}.{real}""",
)  # fmt: skip
def draw_by_steps(table, real=None):
    """Every metric in the table as dots and intervals at a few numbers of sampling steps, one panel each.

    table: rows of distances-*.csv made by fully trained networks; real: rows of distances-real.csv, or None.
    """
    known = [*METRICS, *COLOURS]
    # Precision and recall have one name in all features, so the features are part of a panel.
    keys = sorted(set(zip(table.features, table.metric, strict=True)), key=lambda k: (k[0], known.index(k[1])))
    steps, columns = few(table.steps), min(2, len(keys))
    lines = -(-len(keys) // columns)
    tall = 0.55 + len(steps) * max(0.5, 0.15 * table.weighting.nunique())
    drawn, axes = new_figure(lines, columns, height=0.5 + tall * lines, sharey=True, panels=len(keys))
    for ax, (features, metric) in zip(axes.flat, keys, strict=False):
        at = real[(real.metric == metric) & (real.features == features)] if real is not None else None
        _dot_panel(ax, table[(table.features == features) & (table.metric == metric)], at, steps)
        ax.set_title(_title(metric, features))
    for ax in axes[:, 0]:
        ax.set_yticks(range(len(steps)), [f"{s} steps" for s in steps])
    legend_below(drawn, axes.flat[: len(keys)])
    return drawn


def _title(metric, features):
    if metric in COLOURS:
        return COLOURS[metric]
    name, _, network = METRICS[metric].partition(" (")
    better = "higher" if metric in HIGHER_IS_BETTER else "lower"
    return f"{name} ({better} is better)\n{network.rstrip(')') or _FEATURES.get(features, features)}"


def _dot_panel(ax, rows, real, steps):
    metric = rows.metric.iloc[0]
    scale = "logit" if metric in SHARES else _scale(rows["value"], metric)
    rows = rows[rows.steps.isin(steps)]
    if scale == "logit":
        half = 0.5 / rows.n
        rows = rows.assign(value=rows["value"].clip(half, 1 - half), se=float("nan"))
    dots(ax, summarise(rows, ["weighting", "steps"], scale=scale), steps, "steps")
    if real is not None and len(real):
        real_line(ax, real, scale, upright=True)
    if scale == "log":
        log_axis(ax.xaxis)
    elif scale == "logit":
        ax.set_xscale("logit")
        ax.xaxis.set_major_locator(FixedLocator([0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999]))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())


def _scale(values, metric):
    """Logarithmic for a distance; an unbiased estimate of one may fall below 0, and then all are drawn linearly."""
    return "log" if metric not in HIGHER_IS_BETTER and (values > 0).all() else "linear"


@figure(
    "colour_spread", NOTEBOOK, "tables/distances-*.csv", lambda tables: load_by_steps(tables, SPREADS),
    title="Mean colour of the samples by sampling steps",
    caption="""Mean over images and standard deviation over images of the per-image mean of red, green and blue, in
    [-1, 1], of {n} samples ({samplers}) at a few numbers of sampling steps. Dots: {spread}.{real}""",
)  # fmt: skip
def draw_colour_spread(table, real=None):
    """Mean (left) and spread (right) of the samples' mean colour by channel; arguments as of `draw_by_steps`.

    The grey line is the data's own; samples left of it in the right column are less varied in colour than the data.
    """
    shown = [kind for kind in _STATISTICS if (table.metric == f"{kind}_red").any()]
    steps = few(table.steps)
    tall = 0.4 + len(steps) * max(0.4, 0.13 * table.weighting.nunique())
    drawn, axes = new_figure(3, len(shown), height=0.5 + 3 * tall, sharex="col", sharey=True)
    for line, channel in zip(axes, _CHANNELS, strict=True):
        for ax, kind in zip(line, shown, strict=True):
            metric = f"{kind}_{channel}"
            at = real[real.metric == metric] if real is not None else None
            rows = table[(table.metric == metric) & table.steps.isin(steps)]
            dots(ax, summarise(rows, ["weighting", "steps"]), steps, "steps")
            if at is not None and len(at):
                real_line(ax, at, "linear", upright=True)
            ax.set_title(f"{channel}: {_STATISTICS[kind]}")
        line[0].set_yticks(range(len(steps)), [f"{s} steps" for s in steps])
    legend_below(drawn, axes)
    return drawn


def load_by_images(tables):
    """The same of those numbers of steps at which the networks were measured during training."""
    table, real = load_distances(tables)
    snapshots = table.groupby("steps").images_seen.transform("nunique")
    return _of(table[snapshots > 1], real, DISTANCES)


@figure(
    "distance_by_images", NOTEBOOK, "tables/distances-*.csv", load_by_images,
    title="Distance to real images in the course of training",
    caption="""Distance between {n} samples of the EMA weights ({samplers}) and {n_reference} reference images against
    images seen in training. Lines: {spread}.{real}""",
)  # fmt: skip
def draw_by_images(table, real=None):
    """Every distance against images seen in training, a panel for each distance and number of sampling steps."""
    keys = sorted(
        set(zip(table.features, table.metric, table.steps, strict=True)), key=lambda k: (k[0], DISTANCES.index(k[1]), k)
    )
    columns = min(2, len(keys))
    lines = -(-len(keys) // columns)
    drawn, axes = new_figure(lines, columns, height=0.6 + 2.5 * lines, panels=len(keys))
    for ax, (features, metric, steps) in zip(axes.flat, keys, strict=False):
        rows = table[(table.features == features) & (table.metric == metric) & (table.steps == steps)]
        scale = _scale(rows["value"], metric)
        found = summarise(rows, ["weighting", "images_seen"], scale=scale)
        for who in ordered(found.weighting):
            curve(ax, found[found.weighting == who], "images_seen", who)
        at = real[(real.metric == metric) & (real.features == features)] if real is not None else ()
        if len(at):
            real_line(ax, at, scale)
        if scale == "log":
            log_axis(ax.yaxis)
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.xaxis.set_major_formatter(lambda value, _: count(value))
        ax.set_xlim(left=0)
        ax.set(title=f"{_title(metric, features)}, {steps:g} steps", xlabel="images seen in training")
    legend_below(drawn, axes.flat[: len(keys)])
    return drawn
