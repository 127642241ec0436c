"""Figures of notebook 05: the course of one training, and its samples on the way. Imports no torch."""

import pandas as pd
from matplotlib.ticker import MaxNLocator

from ..errors import InputError
from ..study.saved_tables import parse_run
from ..training.run import Run
from .grids import Row, image_grid
from .registry import figure
from .style import count, log_axis, look, new_figure

NOTEBOOK = "05_training"


def load_log(tables):
    logs = {path.parent.name: path for path in tables.find("runs/*/log.jsonl")}
    name = tables.chosen_run(logs)
    rows = pd.DataFrame(Run(logs[name].parent).log())
    if not len(rows) or not {"images", "loss"} <= set(rows):
        raise InputError(f"{logs[name]} holds no row with images and loss yet")
    tables.use(logs[name])
    return {"run": name}, rows, parse_run(name)[0]


@figure("Course of a training", NOTEBOOK, "runs/*/log.jsonl", load_log)
def training_curves(log, weighting):
    """Loss (weighted, and the plain squared error of the network's target) and gradient norm of the run {run} against
    images seen. Faint: as logged; bold: running median over a twentieth of the run. One run: no error bars.
    """
    drawn, axes = new_figure(2, 1, height=4.5, sharex=True)
    (loss, norm), colour = axes.flat, look(weighting).colour
    _smoothed(loss, log, "mse", "0.45", "plain error, unweighted")
    _smoothed(loss, log, "loss", colour, "loss, weighted")
    _smoothed(norm, log, "grad_norm", colour)
    for ax, title in zip(axes.flat, ("Loss", "Gradient norm"), strict=True):
        ax.set_title(title)
        log_axis(ax.yaxis)
    norm.set_xlabel("images seen in training")
    norm.xaxis.set_major_locator(MaxNLocator(6))
    norm.xaxis.set_major_formatter(lambda value, _: count(value))
    loss.legend(loc="upper right", handlelength=1.5)
    return drawn


def _smoothed(ax, log, column, colour, name=None):
    """The logged values, faint, under their running median over a twentieth of the run."""
    rows = log.reindex(columns=["images", column]).dropna(subset=[column])
    values = rows[column]
    if len(rows) > 20:
        ax.plot(rows.images, values, color=colour, linewidth=0.7, alpha=0.3)
        values = values.rolling(max(3, len(rows) // 20), center=True, min_periods=1).median()
    ax.plot(rows.images, values, color=colour, linewidth=1.8, label=name)


def load_snapshots(tables):
    paths = {path.stem.removeprefix("training-"): path for path in tables.find("tables/training-*.npz")}
    name = tables.chosen_run(paths)
    return {"run": name}, tables.read(paths[name], "images_seen seeds images"), parse_run(name)[0]


@figure("Samples during training", NOTEBOOK, "tables/training-*.npz", load_snapshots)
def training_samples(arrays, weighting, shown=8):
    """Samples of the EMA weights of the run {run} after so many images seen; a column starts from the noise of one
    seed. The first seeds, not chosen; no error bars.
    """
    snapshots, colour = zip(arrays["images_seen"], arrays["images"], strict=True), look(weighting).colour
    rows = [Row(list(images[:shown]), count(seen), colour) for seen, images in snapshots]
    return image_grid(rows, [f"seed {seed}" for seed in arrays["seeds"][:shown]], "images seen")
