"""Rows and columns of images in one tiled picture, labelled. Imports no torch.

Images are uint8 (0 to 255) or float in [-1, 1], clipped for display alone; an error of 0 is thus mid-grey.
"""

from dataclasses import dataclass, field

import numpy as np

from .style import TITLE, WIDTH, ShownFigure

_CELL = 96  # pixels of a tile: small images are enlarged by a whole factor, so every pixel of theirs is a square
_GAP, _BREAK = 4, 18  # pixels between tiles, and between groups of them
_SWATCH = 14  # pixels of the bar of a tile's mean colour
_NOTE = 0.17  # inches of the line of text below a tile
_LARGEST = 1.0  # inches of a tile at most
_CHARACTER = 0.083  # inches of a letter, about


@dataclass(frozen=True)
class Row:
    """One row of a grid: its images (None: an empty place) and its label.

    group: rows that follow each other with the same one share it, at the far left; before a new one is a wider gap.
    notes: short texts below the tiles; a row that has them also shows a bar of each tile's mean colour.
    """

    images: list
    label: str = ""
    colour: str = "0.2"
    group: str = ""
    notes: list = field(default_factory=list)
    gap: bool = False


def image_grid(rows, columns, corner="", breaks=()):
    """A Figure of labelled rows of images.

    rows: list of `Row`; columns: one label for each column; corner: what the column labels count;
    breaks: indices of columns before which there is a wider gap.
    """
    side = _side(rows)
    wide = len(columns) * (side + _GAP) - _GAP + len(breaks) * (_BREAK - _GAP)
    groups = _CHARACTER * max(_length(row.group) for row in rows)
    labels = _CHARACTER * max(_length(row.label) for row in rows)
    labels = max(labels, 0 if groups else _CHARACTER * _length(corner))
    margin = max(0.15 + groups + (0.12 if groups and labels else 0) + labels, 0.15 + _CHARACTER * _length(corner))
    scale = min((WIDTH - margin - 0.05) / wide, _LARGEST / side)
    canvas, xs, ys, ends = _tile(rows, breaks, side, note=_NOTE / scale)
    # As wide as all others, so that the type is of one size wherever figures are fitted to a width.
    height = TITLE + 0.28 + canvas.shape[0] * scale + 0.05
    figure = ShownFigure(figsize=(WIDTH, height))
    box = (margin / WIDTH, 0.05 / height, canvas.shape[1] * scale / WIDTH, canvas.shape[0] * scale / height)
    ax = figure.add_axes(box)
    ax.imshow(canvas, interpolation="nearest", aspect="auto")
    ax.axis("off")
    left = {"ha": "right", "va": "center"}
    for x, text in zip(xs, columns, strict=True):
        _write(ax, text, (x, 0), (0, 4), ha="center", va="bottom")
    _write(ax, corner, (0, 0), (-8, 4), ha="right", va="bottom")
    for y, end, row in zip(ys, ends, rows, strict=True):
        _write(ax, row.label, (0, y), (-8, 0), color=row.colour, **left)
        for x, text in zip(xs, row.notes, strict=False):
            _write(ax, text, (x, end), (0, -2), ha="center", va="top")
    starts = [*(i for i, row in enumerate(rows) if _starts_group(rows, i)), len(rows)]
    for first, after in zip(starts, starts[1:], strict=False):
        row, offset = rows[first], -72 * (0.2 + labels) if labels else -8
        _write(ax, row.group, (0, np.mean(ys[first:after])), (offset, 0), color=row.colour, **left)
    return figure


def _length(text):
    return max(len(line.replace("$", "").replace("\\hat ", "")) for line in text.split("\n"))


def _write(ax, text, at, offset, **more):
    ax.annotate(text, at, offset, textcoords="offset points", annotation_clip=False, **{"color": "0.2", **more})


def _starts_group(rows, i):
    return i == 0 or rows[i].gap or rows[i].group != rows[i - 1].group


def _side(rows):
    size = next(image for row in rows for image in row.images if image is not None).shape[-1]
    return size // max(1, size // (2 * _CELL)) * max(1, _CELL // size)


def _tile(rows, breaks=(), side=_CELL, note=0):
    """One picture (height, width, 3) of all rows, white between them.

    Also the pixel centres of the columns and of the rows, and the lower ends of the rows' pictures.
    """
    columns = range(max(len(row.images) for row in rows))
    xs = [i * (side + _GAP) + sum(b <= i for b in breaks) * (_BREAK - _GAP) for i in columns]
    ys, y = [], 0
    for i, row in enumerate(rows):
        y += (_BREAK - _GAP) * (i > 0 and _starts_group(rows, i))
        ys.append(y)
        y += side + _GAP + (_SWATCH + int(note) if row.notes else 0)
    canvas = np.full((y - _GAP, xs[-1] + side, 3), 255, np.uint8)
    for y, row in zip(ys, rows, strict=True):
        for x, image in zip(xs, row.images, strict=False):
            if image is not None:
                canvas[y : y + side, x : x + side] = _resized(to_uint8(image), side)
                if row.notes:
                    mean = np.mean(image, axis=(1, 2))[:, None, None]  # not clipped before it is averaged
                    canvas[y + side : y + side + _SWATCH, x : x + side] = _resized(to_uint8(mean), 1)
    ends = [y + side + (_SWATCH if row.notes else 0) for y, row in zip(ys, rows, strict=True)]
    return canvas, np.array(xs) + side / 2, np.array(ys) + side / 2, ends


def to_uint8(images):
    """Images as uint8: float ones are clipped to [-1, 1] first. Any shape."""
    images = np.asarray(images)
    if images.dtype == np.uint8:
        return images
    return np.rint((np.nan_to_num(images, nan=0.0).clip(-1, 1) + 1) * 127.5).astype(np.uint8)


def _resized(image, side):
    """(3, R, R) uint8 to (side, side, 3): block means where a large image shrinks, repeated pixels where one grows."""
    image = image.transpose(1, 2, 0)
    shrink = image.shape[0] // side
    if shrink > 1:
        blocks = image[: side * shrink, : side * shrink].reshape(side, shrink, side, shrink, 3)
        return np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)
    return image.repeat(side // image.shape[0], axis=0).repeat(side // image.shape[0], axis=1)
