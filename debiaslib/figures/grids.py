"""Rows and columns of labelled images in one picture. Imports no torch.

Images are uint8 (0 to 255) or float in [-1, 1], clipped for display alone; an error of 0 is thus mid-grey.
"""

from dataclasses import dataclass, field

import numpy as np

from .style import TITLE, WIDTH, ShownFigure

# In inches: between images, between groups of rows, the bar of an image's mean colour, the line of text below it, the
# side of an image at most, the labels of columns, and a letter, about.
_GAP, _BREAK, _SWATCH, _NOTE, _LARGEST, _HEAD, _CHARACTER = 0.03, 0.12, 0.09, 0.17, 1.0, 0.28, 0.083


@dataclass(frozen=True)
class Row:
    """One row of a grid: its images (None: an empty place) and its label.

    gap: whether a wider gap is before it, unless it is the first.
    notes: short texts below the images; a row that has them also shows a bar of each image's mean colour.
    """

    images: list
    label: str = ""
    colour: str = "0.2"
    notes: list = field(default_factory=list)
    gap: bool = False


def image_grid(rows, columns, corner=""):
    """A Figure of labelled rows of images.

    rows: list of `Row`; columns: one label for each column; corner: what the labels of columns and rows count.
    """
    # As wide as all others, so that the type is of one size wherever figures are fitted to a width.
    lines = "\n".join([corner, *(row.label for row in rows)]).replace("$", "").replace("\\hat ", "").split("\n")
    margin = 0.25 + _CHARACTER * max(map(len, lines))
    side = min((WIDTH - 0.05 - margin) / len(columns) - _GAP, _LARGEST)
    xs, ys, y = margin + (side + _GAP) * np.arange(len(columns)), [], TITLE + _HEAD
    for row in rows:
        ys.append(y + _BREAK * (row.gap and bool(ys)))
        y = ys[-1] + side + _GAP + (_SWATCH + _NOTE if row.notes else 0)
    figure = ShownFigure(figsize=(WIDTH, y + 0.05))
    ax = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(y + 0.05, 0))  # in inches, from the upper left corner
    ax.axis("off")
    ax.text(margin - 0.1, TITLE + _HEAD - 0.06, corner, ha="right", color="0.2")
    for x, text in zip(xs, columns, strict=True):
        ax.text(x + side / 2, TITLE + _HEAD - 0.06, text, ha="center", color="0.2")
    for y, row in zip(ys, rows, strict=True):
        ax.text(margin - 0.1, y + side / 2, row.label, ha="right", va="center", color=row.colour)
        for x, image in zip(xs, row.images, strict=False):
            if image is not None:
                _show(ax, image, (x, x + side, y + side, y))
                if row.notes:  # a mean of values that are not clipped
                    mean = np.mean(image, axis=(1, 2), keepdims=True)
                    _show(ax, mean, (x, x + side, y + side + _SWATCH, y + side))
        for x, text in zip(xs, row.notes, strict=False):
            ax.text(x + side / 2, y + side + _SWATCH + 0.02, text, ha="center", va="top", color="0.2")
    return figure


def _show(ax, image, place):
    """Draw an image (3, R, R) at (left, right, lower, upper), in inches."""
    if image.dtype != np.uint8:
        image = np.rint((np.nan_to_num(image).clip(-1, 1) + 1) * 127.5).astype(np.uint8)
    ax.imshow(image.transpose(1, 2, 0), extent=place, aspect="auto")
