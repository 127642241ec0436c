"""Colour shift as a number: how far the colours of samples lie from those of the data, in CIELAB. Imports no torch.

The unit is Delta E*ab (CIE 1976), the Euclidean distance in CIELAB; about 2.3 is just noticeable. An image's mean
colour is the mean of its sRGB code values, converted to CIELAB after that: the network works on code values, and their
mean is the coefficient that stays uncertain longest under noise.

The standard errors here say how far the same network's next images would move a value. Whether one weighting is better
than another is a question about training: `statistics.paired_ratio` over training seeds.
"""

import numpy as np
import scipy
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from ..errors import InputError

W1_LIMIT = 1000  # points of each set: the optimal matching costs N^3
ENERGY_LIMIT = 5000  # points of each set: all pairs are taken
GRID = 4

# Linear RGB to XYZ, from the chromaticities (x, y) of IEC 61966-2-1: white (D65) is R = G = B = 1, so that greys have
# a* = b* = 0 exactly; its own matrix, rounded to four digits, leaves 0.01 there.
_X, _Y = np.array([[0.64, 0.30, 0.15, 0.3127], [0.33, 0.60, 0.06, 0.3290]])  # red, green, blue, white
_XYZ = np.stack([_X / _Y, np.ones(4), (1 - _X - _Y) / _Y])
_TO_XYZ = _XYZ[:, :3] * np.linalg.solve(_XYZ[:, :3], _XYZ[:, 3])


def to_lab(rgb):
    """sRGB (..., 3), uint8 or floats in [0, 1], to CIELAB: float64 (..., 3), L* in [0, 100], then a* and b*.

    IEC 61966-2-1 and CIE 1976, white D65, 2 degrees observer.
    """
    rgb = rgb / 255 if rgb.dtype == np.uint8 else rgb
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    ratio = linear @ (_TO_XYZ / _TO_XYZ.sum(1, keepdims=True)).T  # X / Xn, Y / Yn, Z / Zn
    d = 6 / 29
    f = np.where(ratio > d**3, np.cbrt(ratio), ratio / (3 * d * d) + 4 / 29)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def mean_colours_lab(images):
    """CIELAB of each image's mean colour: uint8 (N, 3, H, W) -> float64 (N, 3). InputError for other images."""
    return to_lab(check_images("images", images).mean((2, 3), np.float64) / 255)


def layout_colours_lab(images):
    """CIELAB of each cell's mean colour on a 4x4 grid: uint8 (N, 3, H, W), H and W >= 4 -> float64 (N, 16, 3).

    Cells in reading order; where a side is no multiple of 4, neighbours share a row or column (`features` "pooled").
    """
    images = check_images("images", images)
    rows, columns = ([slice(i * n // GRID, -(-(i + 1) * n // GRID)) for i in range(GRID)] for n in images.shape[2:])
    return to_lab(np.stack([images[:, :, y, x].mean((2, 3), np.float64) for y in rows for x in columns], 1) / 255)


def check_images(name, images):
    """Return `images`, array or tensor, as a uint8 array (N, 3, H, W), N >= 1. Raises InputError for anything else."""
    images = np.asanyarray(images.cpu() if hasattr(images, "cpu") else images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        raise InputError(f"{name} are {images.dtype} of shape {images.shape}; they must be uint8 (N, 3, H, W)")
    return images


def wasserstein(a, b):
    """W1 between point sets (N, d) and (N, d): the mean Euclidean distance of the best one-to-one matching, exact.

    Of mean colours: by how many Delta E they have to move, on average, for the two sets to be the same. Biased upwards
    at finite N, so it compares only at equal N. The cost is N^3.
    """
    distances = cdist(a, b)
    return float(distances[linear_sum_assignment(distances)].mean())


def energy_distance(a, b):
    """(value, standard error) of 2 E|X-Y| - E|X-X'| - E|Y-Y'| between point sets (N, d) and (M, d); N, M >= 3.

    Zero for equal distributions and for no others (Szekely and Rizzo 2013). Unbiased, as no point is paired with
    itself, so it may fall slightly below zero and sets of unequal size compare. In the points' unit. The error is the
    jackknife's over both sets, too large rather than too small (Efron and Stein 1981).
    """
    # The distances of each point to all of a set, summed. 5000 points of each set take 200 MB.
    across, within_a, within_b = cdist(a, b), cdist(a, a).sum(1), cdist(b, b).sum(1)
    from_a, from_b = across.sum(1), across.sum(0)
    value = _energy(from_a.sum(), len(a), len(b), within_a.sum(), within_b.sum())
    variance = 0.0
    for cross, own, other in ((from_a, within_a, within_b), (from_b, within_b, within_a)):
        n, m = len(own), len(other)
        without = _energy(cross.sum() - cross, n - 1, m, own.sum() - 2 * own, other.sum())
        variance += (n - 1) * without.var()
    return float(value), float(variance**0.5)


def _energy(across, n, m, within, within_other):
    """From the sums over all ordered pairs, of n points and m others."""
    return 2 * across / (n * m) - within / (n * (n - 1)) - within_other / (m * (m - 1))


def evaluate_colour(images, reference_images):
    """All colour metrics of uint8 images (N, 3, H, W) against (M, 3, H', W'): rows as `distances.evaluate`.

    colour_w1, colour_energy    `wasserstein` and `energy_distance` of the mean colours, Delta E
    layout_energy               `energy_distance` of 4x4 layouts; between two images: root mean square over the cells

    W1 takes min(N, M, 1000) images of each set and the energy distances 5000 at most, evenly spaced in the order given,
    as files may lie sorted by class; n and n_reference (0 where there is none) say how many. InputError for N or M < 3.
    """
    images, reference_images = check_images("images", images), check_images("reference images", reference_images)
    if min(len(images), len(reference_images)) < 3:
        raise InputError(f"{len(images)} and {len(reference_images)} images are compared; each must be 3 at least")
    lab = mean_colours_lab(images)
    ours, theirs = _spaced(images, ENERGY_LIMIT), _spaced(reference_images, ENERGY_LIMIT)
    lab_ours, lab_theirs = _spaced(lab, ENERGY_LIMIT), mean_colours_lab(theirs)
    matched = min(*map(len, (lab_ours, lab_theirs)), W1_LIMIT)
    w1 = wasserstein(_spaced(lab_ours, matched), _spaced(lab_theirs, matched))
    # A length divided by sqrt(16) is the root mean square over the 16 cells.
    layouts = [layout_colours_lab(part).reshape(len(part), -1) / GRID for part in (ours, theirs)]
    in_lab, in_cells = "mean of sRGB codes, to CIELAB", f"{GRID}x{GRID} area means of sRGB codes, to CIELAB"
    pair = len(ours), len(theirs)
    same = {"library": "scipy", "version": scipy.__version__, "weights_sha256": None, "dtype": "float64", "batch": None}
    rows = [
        ("colour_w1", float(w1), None, matched, matched, in_lab),
        ("colour_energy", *energy_distance(lab_ours, lab_theirs), *pair, in_lab),
        ("layout_energy", *energy_distance(*layouts), *pair, in_cells),
    ]
    names = ("metric", "value", "se", "n", "n_reference", "extractor")
    return [{"features": "colour", **dict(zip(names, row, strict=True)), **same} for row in rows]


def _spaced(items, count):
    return items if len(items) <= count else items[np.arange(count) * len(items) // count]
