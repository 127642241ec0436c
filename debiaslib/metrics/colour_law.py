"""The colours of MiniFaces as their law has them, and how far those of samples are from it. Imports no torch.

The law is exact (`minifaces.FACTORS`), so there is no reference set and no error of one. At height y a background has
the shade s = (R + G + B) / 3 = S + slope (y - 1/2), and about it the channels C min(S, 1 - S) cos(2 pi (h - c / 3)):
three numbers, which a colour gives back as shade s, amplitude A = C min(S, 1 - S) and hue h. S and slope cannot be told
apart at one height, but the sum of two uniform numbers has a known law, too: s is trapezoidal.

Images hold the channels clipped to [0, 1] and rounded. About 1 face in 90 has a clipped one in its upper corners, which
moves its shade by up to 0.015 and its hue by up to 0.012 turns, and the distances from the law by about 0.001.
"""

from typing import NamedTuple

import numpy as np
from scipy import stats

from ..data.minifaces import FACTORS
from ..errors import InputError
from .colour import check_images, colour_row, mean_with_error, spread_with_error

__all__ = ["Background", "background_law", "background_of", "evaluate_law", "impossible", "kuiper", "shade_law"]

_SHADE, _CHROMA, _SLOPE = (FACTORS[f"background_{name}"] for name in ("shade", "chroma", "slope"))


class Background(NamedTuple):
    """Backgrounds near the top of images: arrays (N,). height: of the pixels, 0 at the top, 1 at the bottom.

    shade: mean of R, G and B in [0, 1]. amplitude: of the cosine over the channels. hue: in turns, 0 to 1, 0 and 1 red.
    """

    shade: np.ndarray
    amplitude: np.ndarray
    hue: np.ndarray
    height: float


def background_of(images):
    """The backgrounds of uint8 images (N, 3, R, R), R >= 8, from the two upper corners: a `Background`.

    Each corner is R // 8 pixels a side; no face of `minifaces.render` reaches into them, at any resolution.
    """
    images = check_images("images", images)
    side = min(images.shape[2:])
    if side < 8 or images.shape[2] != images.shape[3]:
        raise InputError(f"images are {images.shape[2]}x{images.shape[3]}; MiniFaces are square, at least 8x8")
    k = side // 8
    corners = np.concatenate([images[:, :, :k, :k], images[:, :, :k, -k:]], -1)
    colour = corners.mean((2, 3), dtype=np.float64) / 255
    shade = colour.mean(1)
    # The first Fourier coefficient over the three channels; a colour has no other but its mean.
    wave = (colour * np.exp(2j * np.pi * np.arange(3) / 3)).sum(1) * 2 / 3
    return Background(shade, np.abs(wave), np.angle(wave) / (2 * np.pi) % 1, k / 2 / side)


def shade_law(height=0.5):
    """The law of the background's shade at a height in [0, 1]: a frozen scipy distribution. Uniform at 1/2."""
    reach = _SLOPE.high * abs(height - 0.5)
    width = _SHADE.high - _SHADE.low + 2 * reach
    return stats.trapezoid(2 * reach / width, 1 - 2 * reach / width, loc=_SHADE.low - reach, scale=width)


def background_law(height=0.5):
    """(mean, standard deviation) of each channel of the background at a height, in [0, 1], before clipping.

    The three channels have the same law, as the hue is uniform: mean 1/2, and with m = min(S, 1 - S)
    variance = Var S + E[C^2] E[m^2] / 2 + (height - 1/2)^2 Var slope.
    """
    # S is symmetric about 1/2, so m is uniform from the lowest shade to 1/2.
    wave = _second_moment(_CHROMA.low, _CHROMA.high) * _second_moment(_SHADE.low, 0.5) / 2
    variance = _variance(_SHADE) + wave + (height - 0.5) ** 2 * _variance(_SLOPE)
    return (_SHADE.low + _SHADE.high) / 2, variance**0.5


def _second_moment(low, high):
    return (low * low + low * high + high * high) / 3


def _variance(factor):
    return (factor.high - factor.low) ** 2 / 12


def impossible(background, tolerance=1 / 255):
    """bool (N,): no factors of MiniFaces give this colour, not even one `tolerance` away (default: a grey level).

    Over the shades S that some slope allows, the amplitude must lie between the lowest and the highest chroma times
    min(S, 1 - S): a grey background is as impossible as one that is too dark, too light or too colourful.
    """
    reach = _SLOPE.high * abs(background.height - 0.5) + tolerance
    low = np.maximum(background.shade - reach, _SHADE.low)
    high = np.minimum(background.shade + reach, _SHADE.high)
    # min(S, 1 - S) is least at one end of [low, high] and greatest where S is nearest to 1/2.
    least, most = np.minimum(low, 1 - high), np.minimum(np.minimum(high, 1 - low), 0.5)
    dull = background.amplitude < _CHROMA.low * least - tolerance
    vivid = background.amplitude > _CHROMA.high * most + tolerance
    return (low > high) | dull | vivid


def kuiper(turns):
    """Kuiper's V = D+ + D- of angles in turns (N,) against the uniform law on the circle, in [1/N, 1].

    Unlike Kolmogorov and Smirnov's D it does not depend on where the circle is cut. Under the law sqrt(N) V exceeds
    1.747 with probability 0.05 for large N.
    """
    u = np.asarray(turns, np.float64) % 1
    return sum(float(stats.ks_1samp(u, stats.uniform.cdf, alternative=side).statistic) for side in ("greater", "less"))


def evaluate_law(images):
    """How far the backgrounds of uint8 images (N, 3, R, R) are from MiniFaces' law: rows as of `metrics.evaluate`.

    law_shade_ks      Kolmogorov and Smirnov's D between the shades and `shade_law`; 1.358 / sqrt(N) is its 95 % point
                      for images of the law
    law_hue_kuiper    `kuiper` of the hues; 1.747 / sqrt(N) likewise
    law_impossible    the share of images that are `impossible`, with the error of Agresti and Coull 1998, which is
                      not 0 for a share of 0
    law_shade_bias    mean shade minus its law's, 1/2; in [0, 1] code values: > 0 is too light
    law_shade_spread  standard deviation of the shade over its law's: < 1 is too narrow

    There is no reference: n_reference is 0. Faces of the law itself get a D and V of about 0.87 and 1.24 / sqrt(N).
    """
    background = background_of(images)
    law, shade, n = shade_law(background.height), background.shade, len(background.shade)
    if n < 2:
        raise InputError(f"images are {n}; comparing with a law needs at least 2")
    count = int(impossible(background).sum())
    share = (count + 2) / (n + 4)
    bias, spread = np.array(mean_with_error(shade)) - (law.mean(), 0), np.array(spread_with_error(shade)) / law.std()
    results = {
        "law_shade_ks": (stats.ks_1samp(shade, law.cdf).statistic, None),
        "law_hue_kuiper": (kuiper(background.hue), None),
        "law_impossible": (count / n, (share * (1 - share) / (n + 4)) ** 0.5),
        "law_shade_bias": bias,
        "law_shade_spread": spread,
    }
    rule = "background in the upper corners, against MiniFaces' law"
    return [colour_row(metric, result, rule, n) for metric, result in results.items()]
