"""The figures made of images: rows and columns of them in one tiled picture, labelled. Imports no torch.

Images are uint8 (0 to 255) or float in [-1, 1], clipped for display alone; an error of 0 is thus mid-grey.
"""

from dataclasses import dataclass

import numpy as np

from .style import WIDTH, ShownFigure, count, label, look, note, ordered, style

__all__ = ["Row", "image_grid", "one_step_anatomy", "one_step_estimates", "samples_by_steps", "training_samples"]

_CELL = 96  # pixels of a tile: small images are enlarged by a whole factor, so every pixel of theirs is a square
_GAP, _BREAK = 4, 18  # pixels between tiles, and between groups of them
_LARGEST = 1.0  # inches of a tile at most


@dataclass(frozen=True)
class Row:
    """One row of a grid: its images (None: an empty place), its label, and whether a wider gap comes before it.

    Rows that follow each other with the same label and no gap share one label.
    """

    images: list
    label: str = ""
    colour: str = "0.2"
    gap: bool = False


def to_uint8(images):
    """Images as uint8: float ones are clipped to [-1, 1] first. Any shape."""
    images = np.asarray(images)
    if images.dtype == np.uint8:
        return images
    return np.rint((np.nan_to_num(images, nan=0.0).clip(-1, 1) + 1) * 127.5).astype(np.uint8)


def _tile(rows, breaks=()):
    """One array (height, width, 3) of all rows, white between; and the pixel centres of the columns and of the rows."""
    shape = next(image for row in rows for image in row.images if image is not None).shape
    enlarge, shrink = max(1, _CELL // shape[-1]), max(1, shape[-1] // (2 * _CELL))
    side = shape[-1] // shrink * enlarge
    gaps, columns = np.cumsum([row.gap for row in rows]), range(max(len(row.images) for row in rows))
    xs = [i * (side + _GAP) + sum(b <= i for b in breaks) * (_BREAK - _GAP) for i in columns]
    ys = [i * (side + _GAP) + int(gaps[i]) * (_BREAK - _GAP) for i in range(len(rows))]
    canvas = np.full((ys[-1] + side, xs[-1] + side, 3), 255, np.uint8)
    for y, row in zip(ys, rows, strict=True):
        for x, image in zip(xs, row.images, strict=False):
            if image is not None:
                canvas[y : y + side, x : x + side] = _resized(to_uint8(image), enlarge, shrink)
    return canvas, np.array(xs) + side / 2, np.array(ys) + side / 2, side


def _resized(image, enlarge, shrink):
    """(3, R, R) uint8 to (side, side, 3): block means where a large image shrinks, repeated pixels where one grows."""
    image = image.transpose(1, 2, 0)
    if shrink > 1:
        side = image.shape[0] // shrink
        blocks = image[: side * shrink, : side * shrink].reshape(side, shrink, side, shrink, 3)
        return np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)
    return image.repeat(enlarge, axis=0).repeat(enlarge, axis=1)


def image_grid(rows, columns, corner="", breaks=()):
    """A Figure of labelled rows of images.

    rows: list of `Row`; columns: one label for each column; corner: what the column labels count;
    breaks: indices of columns before which there is a wider gap.
    """
    canvas, xs, ys, side = _tile(rows, breaks)
    margin = 0.12 + 0.085 * max(len(text) for row in [*rows, Row([], corner)] for text in row.label.split("\n"))
    scale = min((WIDTH - margin - 0.05) / canvas.shape[1], _LARGEST / side)
    width, height = margin + canvas.shape[1] * scale + 0.05, 0.28 + canvas.shape[0] * scale + 0.05
    figure = ShownFigure(figsize=(width, height))
    ax = figure.add_axes(
        (margin / width, 0.05 / height, canvas.shape[1] * scale / width, canvas.shape[0] * scale / height)
    )
    ax.imshow(canvas, interpolation="nearest", aspect="auto")
    ax.axis("off")
    for x, text in zip(xs, columns, strict=True):
        ax.annotate(
            text, (x, 0), (0, 4), textcoords="offset points", ha="center", va="bottom", fontsize=9.5, color="0.2"
        )
    ax.annotate(corner, (0, 0), (-8, 4), textcoords="offset points", ha="right", va="bottom", fontsize=9.5, color="0.2")
    for y, row in _label_places(rows, ys):
        ax.annotate(row.label, (0, y), (-8, 0), textcoords="offset points", ha="right", va="center", color=row.colour)
    return figure


def _label_places(rows, ys):
    groups = []
    for y, row in zip(ys, rows, strict=True):
        if groups and row.label == groups[-1][1].label and not row.gap:
            groups[-1][0].append(y)
        else:
            groups.append(([y], row))
    return [(np.mean(places), row) for places, row in groups]


@style()
def one_step_anatomy(arrays, weightings=("constant",), image=0):
    """Rows x_t, then x0_hat and amplified error of each weighting; a column for each t (paper, figure 2 right).

    The clean x0 comes first. `arrays`: one_step.npz. Weightings that it lacks are left out.
    """
    names, clean = list(arrays["names"]), arrays["x0"][image]
    rows = [Row([clean, *arrays["x_t"][:, image]], "$x_t$")]
    for who in (who for who in weightings if who in names):
        at, colour = names.index(who), look(who).colour
        rows.append(Row([None, *arrays["x0_hat"][at, :, image]], f"{label(who)}\n$\\hat x_0$", colour, gap=True))
        rows.append(Row([None, *arrays["amplified_error"][at, :, image]], "amplified\nerror", colour))
    return image_grid(rows, ["$x_0$", *(f"{t}" for t in arrays["t"])], "timestep $t$", breaks=(1,))


@style()
def one_step_estimates(arrays, weightings=("constant", "debiased", "optimum"), images=3):
    """For each of a few images, rows of x0_hat by weighting; columns: the clean x0, each t (paper, figure 3)."""
    names = list(arrays["names"])
    shown = [who for who in weightings if who in names]
    rows = []
    for image in range(min(images, arrays["x0"].shape[0])):
        for who in shown:
            clean = arrays["x0"][image] if who == shown[0] else None
            estimates = arrays["x0_hat"][names.index(who), :, image]
            first = who == shown[0]
            rows.append(Row([clean, *estimates], label(who).split(" $")[0], look(who).colour, gap=first and image > 0))
    return image_grid(rows, ["$x_0$", *(f"{t}" for t in arrays["t"])], "timestep $t$", breaks=(1,))


@style()
def samples_by_steps(samples, images=None):
    """Samples from the same starting noise by number of sampling steps (paper, figures 1 and 5 right).

    `samples`: {weighting: {"steps" (K,), "images" (K, N, 3, R, R)}}; `images`: rows for each weighting (None: what fits
    a screen). Columns are the numbers of steps that all weightings have.
    """
    images = images or (2 if len(samples) <= 4 else 1)
    steps = sorted(set.intersection(*({int(s) for s in arrays["steps"]} for arrays in samples.values())))
    if not steps:
        return note("The weightings were sampled with no number of steps in common.")
    rows = []
    for who in ordered(samples):
        places = [list(samples[who]["steps"]).index(s) for s in steps]
        for i in range(min(images, samples[who]["images"].shape[1])):
            images_of_row = list(samples[who]["images"][places, i])
            rows.append(Row(images_of_row, label(who), look(who).colour, gap=i == 0 and bool(rows)))
    return image_grid(rows, [count(s) for s in steps], "steps")


@style()
def training_samples(arrays, weighting, images=8):
    """Samples of the EMA weights during training: a row for each snapshot, a column for each starting noise."""
    shown = min(images, arrays["images"].shape[1])
    rows = [
        Row(list(row[:shown]), count(seen), look(weighting).colour)
        for seen, row in zip(arrays["images_seen"], arrays["images"], strict=True)
    ]
    return image_grid(rows, [f"seed {seed}" for seed in arrays["seeds"][:shown]], "images seen")
