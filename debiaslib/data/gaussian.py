"""Images of a Gaussian law with a 1/f^2 power spectrum: the truth E[x0 | x_t] is known at every t. Imports no torch.

Before rounding an image is Gaussian and stationary on the torus. Its mean is the colour `MEAN`, each channel of each
pixel has the standard deviation `SD`, two channels of a pixel have the correlation `CORRELATION`, and its power at the
frequency (u, v), in cycles per image, goes as 1/(u^2 + v^2), as in photographs; at u = v = 0 it is that of f = 1/2.
White and black lie at least 5 standard deviations from the mean: about 1 pixel in 5 million is clipped.

Image i of a seed is a pure function of (seed, i, resolution). The bits come from numpy's Philox, whose stream numpy
keeps. Logarithm and cosine, which may differ between machines in the last bit, are rounded to `_STEP`, after which all
sums are exact in whatever order a matrix product takes them.
"""

import math

import numpy as np

from ..errors import check_number

MEAN = (140.0, 127.5, 115.0)  # grey levels of red, green and blue
SD = 23.0  # grey levels
CORRELATION = 0.75
_LARGEST = 32  # the law of an image has (3 R^2)^2 entries
_STEP = 2.0**-14  # of normal numbers and of the filter: 53 bits hold any sum of their products
_CHUNK = 1024  # images at once: bounds the memory at about 20 MB for 16x16
_COLOURS = np.linalg.cholesky((1 - CORRELATION) * np.eye(3) + CORRELATION)  # lower triangular


def render(indices, resolution=16, seed=0):
    """Draw the images `indices` of `seed`, whole numbers >= 0: uint8 (N, 3, resolution, resolution), RGB.

    An image depends on its own index alone. Raises InputError for a resolution outside 4 .. 32.
    """
    filter_, indices = _spatial_root(resolution), [int(index) for index in indices]
    pixels, images = resolution**2, np.empty((len(indices), 3, resolution, resolution), np.uint8)
    for start in range(0, len(indices), _CHUNK):
        part = indices[start : start + _CHUNK]
        white = np.stack([_normal(seed, index, 3 * pixels) for index in part]).reshape(-1, 3, pixels)
        # Written out, as no matrix product promises an order of its sums.
        rows = [sum(_COLOURS[c, k] * white[:, k] for k in range(3)) for c in range(3)]
        levels = _on_grid(np.stack(rows, axis=1)) @ filter_ + np.array(MEAN)[:, None]
        rounded = np.clip(np.floor(levels + 0.5), 0, 255).astype(np.uint8)
        images[start : start + len(part)] = rounded.reshape(-1, 3, resolution, resolution)
    return images


def gaussian_law(resolution=16):
    """(mean (D,), covariance (D, D)) of the images as x/127.5 - 1, flattened to D = 3 resolution^2: float64.

    The covariance includes rounding to whole grey levels, which adds 1/12 level^2 to each variance (Sheppard's
    correction); clipping is left out. Raises InputError for a resolution outside 4 .. 32.
    """
    space = _spatial_root(resolution)
    covariance = np.kron(_COLOURS @ _COLOURS.T, space @ space.T) + np.eye(3 * resolution**2) / 12
    return np.repeat(np.array(MEAN) / 127.5 - 1, resolution**2), covariance / 127.5**2


def _normal(seed, index, count):
    """float64 (count,): standard normal numbers from Philox's raw bits, by Box and Muller."""
    pairs = -(-count // 2)
    bits = np.random.Philox(key=np.array([seed, index], np.uint64)).random_raw(2 * pairs) >> np.uint64(11)
    first, second = (bits.reshape(2, pairs) + np.array([[1.0], [0.0]])) * 2.0**-53  # in (0, 1] and [0, 1)
    radius, angle = np.sqrt(-2 * np.log(first)), 2 * math.pi * second
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]


def _on_grid(values):
    return np.rint(values / _STEP) * _STEP


def _spatial_root(resolution):
    """The symmetric filter (R^2, R^2), in grey levels: white noise in, `SD` and the spectrum 1/f^2 out."""
    check_number("resolution of Gaussian images", resolution, minimum=4, maximum=_LARGEST, integer=True)
    frequency = np.fft.fftfreq(resolution, 1 / resolution)
    squared = frequency[:, None] ** 2 + frequency**2
    squared[0, 0] = 0.25
    amplitude = SD * np.sqrt(resolution**2 / squared / (1 / squared).sum())
    kernel = np.fft.ifft2(amplitude).real  # what one pixel of white noise spreads to, about the origin
    row, column = np.divmod(np.arange(resolution**2), resolution)
    return _on_grid(kernel[row[:, None] - row, column[:, None] - column])  # negative offsets wrap around
