"""Distances between samples and real images: curves by sampling steps and by images seen. Imports no torch."""

from matplotlib.ticker import MaxNLocator

from ..metrics.statistics import HIGHER_IS_BETTER
from .curves import curve, real_line, summarise
from .style import count, legend_below, log_axis, look, new_figure, note, ordered, style, ticks_at

__all__ = ["METRICS", "distance_by_images", "distance_by_steps", "paper_fid", "precision_recall"]

METRICS = {  # column `metric`: panel title
    "fd_minifaces": "Fréchet distance (MiniFaces features)",
    "fd_cifar10": "Fréchet distance (CIFAR-10 features)",
    "fd_pooled": "Fréchet distance (pooled pixels)",
    "fd_dinov2": "Fréchet distance (DINOv2)",
    "fid": "FID (Inception-v3)",
    "kid_minifaces": "Kernel distance (MiniFaces features)",
    "kid_cifar10": "Kernel distance (CIFAR-10 features)",
    "kid_pooled": "Kernel distance (pooled pixels)",
    "kid_dinov2": "Kernel distance (DINOv2)",
    "kid": "KID (Inception-v3)",
    "is": "Inception score",
    "precision": "Precision",
    "recall": "Recall",
}
_DISTANCES = tuple(name for name in METRICS if name not in ("precision", "recall"))
_FEATURES = {
    "minifaces": "MiniFaces features",
    "cifar10": "CIFAR-10 features",
    "pooled": "pooled pixels",
    "dinov2": "DINOv2",
    "inception": "Inception-v3",
}
_PAPER = {"DDPM_constant": ("constant", "constant"), "P2": ("p2", "P2"), "Min-SNR": ("min_snr", "Min-SNR"),
          "Ours": ("debiased", "debiased")}  # fmt: skip


@style()
def distance_by_steps(table, real=None):
    """Every distance in the table against the number of sampling steps, one panel each.

    `table`: rows of distances-*.csv made by fully trained networks; `real`: rows of distances-real.csv, or None.
    """
    return _panels(table, real, _DISTANCES, "steps", "sampling steps")


@style()
def precision_recall(table, real=None):
    """Precision and recall against the number of sampling steps. Arguments as of `distance_by_steps`."""
    return _panels(table, real, ("precision", "recall"), "steps", "sampling steps")


@style()
def distance_by_images(table, real=None):
    """Every distance against images seen in training, a panel for each distance and number of sampling steps."""
    return _panels(table, real, _DISTANCES, "images_seen", "images seen in training")


def _panels(table, real, metrics, x, xlabel):
    # Precision and recall have one name in all features, so the features are part of a panel.
    apart = ["metric", "features"] if x == "steps" else ["metric", "features", "steps"]
    groups = dict(list(table[table.metric.isin(metrics)].groupby(apart)))
    if not groups:
        return note(f"Not measured in this experiment: {', '.join(metrics)}.")
    columns = min(2, len(groups))
    lines = -(-len(groups) // columns)
    figure, axes = new_figure(lines, columns, height=0.5 + 3.5 * lines, width=9.0 if columns > 1 else 7.0)
    for ax, key in zip(
        axes.flat, sorted(groups, key=lambda key: (key[1], metrics.index(key[0]), key[2:])), strict=False
    ):
        metric, features, *steps = key
        at = real[(real.metric == metric) & (real.features == features)] if real is not None else None
        _panel(ax, groups[key], at, x, logarithmic=metric in _DISTANCES and bool((groups[key]["value"] > 0).all()))
        shared = f" ({_FEATURES.get(features, features)})" if metric in ("precision", "recall") else ""
        ax.set_title(METRICS[metric] + shared + "".join(f", {s:g} steps" for s in steps))
        better = "higher" if metric in HIGHER_IS_BETTER else "lower"
        ax.set(xlabel=xlabel, ylabel=f"{metric} ({better} is better)")
        if metric in ("precision", "recall"):
            ax.set_ylim(-0.03, 1.03)
    for ax in axes.flat[len(groups) :]:
        ax.remove()
    legend_below(figure, axes.flat[: len(groups)])
    return figure


def _panel(ax, rows, real, x, logarithmic):
    found = summarise(rows, ["weighting", x], log=logarithmic)
    for who in ordered(found.weighting):
        curve(ax, found[found.weighting == who], x, who)
    if real is not None and len(real):
        real_line(ax, real, logarithmic)
    if logarithmic:
        log_axis(ax.yaxis)
    if x == "steps":
        log_axis(ax.xaxis)
        ticks_at(ax.xaxis, rows[x])
    else:
        ax.xaxis.set_major_locator(MaxNLocator(6))
        ax.xaxis.set_major_formatter(lambda value, _: count(value))
        ax.set_xlim(left=0)


@style()
def paper_fid(table):
    """The paper's FID figure as digitised: (a) by training iterations, (b) by sampling steps.

    `table`: columns panel, series, x_name, x, fid10k, uncertainty.
    """
    figure, [[left, right]] = new_figure(1, 2, height=4.4)
    figure.suptitle("FID-10k of the paper (Yu et al. 2024), digitised from its figure", x=0.01, ha="left", fontsize=12)
    for ax, panel in ((left, "a"), (right, "b")):
        for series, rows in table[table.panel == panel].groupby("series", sort=False):
            name, _, T = series.partition("_T1")
            who, text = _PAPER[name]
            style_of = look(who).line
            if T == "00":  # T = 100: thinner and hollow
                colour = style_of["color"]
                style_of.update(markerfacecolor="white", markeredgecolor=colour, markeredgewidth=1.2, linewidth=1.1)
            ax.plot(rows.x, rows.fid10k, **style_of, label=f"{text}, T = 1{T}" if T else text)
            ax.errorbar(
                rows.x, rows.fid10k, yerr=rows.uncertainty, fmt="none", zorder=1, ecolor=style_of["color"], elinewidth=1
            )
    left.set(title="(a) by training", xlabel="training iterations (thousands)", ylabel="FID-10k (lower is better)")
    right.set(title="(b) by sampling steps, 500k iterations", xlabel="sampling steps")
    log_axis(right.xaxis)
    ticks_at(right.xaxis, table[table.panel == "b"].x)
    for ax in (left, right):
        ax.set_ylim(bottom=0)
    left.legend(loc="lower left", ncols=2, handlelength=2.4, columnspacing=1, fontsize=9)
    right.legend(loc="upper right")
    return figure
