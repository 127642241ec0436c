"""MiniFaces, "FFHQ in miniature": cartoon faces drawn from a few known factors, at any size, with nothing to download.

Image i of a seed is a pure function of (seed, i, resolution).

**The law.** Every factor is uniform on its interval in `FACTORS` and independent of the others. The background, which
fills about half of an image, has the colour (R, G, B) in [0, 1], with S = `background_shade`, C = `background_chroma`,
h = `background_hue` and c = 0, 1, 2 for R, G, B

    S + C * min(S, 1 - S) * cos(2 pi (h - c / 3)) + `background_slope` * (y - 1/2)

which is grey of shade S on average over the hue.

Only +, -, *, / and sqrt touch the pixels. IEEE 754 fixes their results, so the images are the same to the bit on
every machine, for any numpy; cosines are therefore polynomials here, and sums are written out.
"""

from collections import namedtuple

import numpy as np

from ..errors import check_number

# Uniform on [low, high). Lengths are in units of the image's side, y points down.
Factor = namedtuple("Factor", "low high meaning")
FACTORS = {
    "background_hue": Factor(0.0, 1.0, "hue of the background, in turns: 0 red, 1/3 green, 2/3 blue"),
    "background_shade": Factor(0.15, 0.85, "mean of the background's R, G and B: 0 black, 1 white"),
    "background_chroma": Factor(0.15, 0.95, "colourfulness of the background, as a share of the most that fits"),
    "background_slope": Factor(-0.12, 0.12, "how much lighter the background is at the bottom than at the top"),
    "head_x": Factor(0.42, 0.58, "centre of the head, from the left"),
    "head_y": Factor(0.47, 0.57, "centre of the head, from the top"),
    "head_size": Factor(0.24, 0.30, "half the width of the head"),
    "head_length": Factor(1.05, 1.3, "height of the head over its width"),
    "turn": Factor(-0.22, 0.22, "sideways shift of eyes and mouth, as a share of half the head's width"),
    "skin": Factor(0.0, 1.0, "skin tone: 0 light, 1 dark"),
    "hair_shade": Factor(0.0, 1.0, "hair colour: 0 black, 1/2 brown, 1 blond"),
    "hair_red": Factor(0.0, 1.0, "redness of the hair"),
    "hair_volume": Factor(0.01, 0.08, "thickness of the hair around the head"),
    "hair_length": Factor(0.0, 0.42, "how far the hair falls beside the head"),
    "fringe": Factor(0.42, 0.85, "height of the hair line above the eyes' axis, as a share of half the head's height"),
    "parting": Factor(-0.6, 0.6, "slope of the hair line: > 0 falls to the right"),
    "shirt_hue": Factor(0.0, 1.0, "hue of the shirt, in turns"),
    "shirt_shade": Factor(0.2, 0.8, "mean of the shirt's R, G and B"),
    "eye_size": Factor(0.055, 0.078, "half the width of an eye"),
    "eye_gap": Factor(0.40, 0.52, "half the distance between the eyes, as a share of half the head's width"),
    "eye_look": Factor(-1.0, 1.0, "where the eyes look: -1 left, 1 right"),
    "eye_colour": Factor(0.0, 1.0, "colour of the iris: 0 dark brown, 1 blue"),
    "mouth_width": Factor(0.075, 0.13, "half the width of the mouth"),
    "mouth_curve": Factor(-0.045, 0.07, "height of the mouth's corners above its middle: > 0 smiles, < 0 frowns"),
    "mouth_open": Factor(0.014, 0.032, "half the height of the mouth's line"),
}

# float32 sub-pixels held at once; a chunk of images is cut to this, which bounds the memory at about 60 MB.
_CHUNK_PIXELS = 1 << 20


def render(indices, resolution=16, seed=0):
    """Draw the images `indices` of `seed`, whole numbers >= 0: uint8 (N, 3, resolution, resolution), RGB.

    An image depends on its own index alone. Raises InputError for a resolution outside 8 .. 256.
    """
    check_number("resolution", resolution, minimum=8, maximum=256, integer=True)
    every = factors(indices, seed)
    finer = 2 if resolution < 64 else 1  # two sub-pixels a side where an eye is only a few pixels wide
    chunk = max(1, _CHUNK_PIXELS // (resolution * finer) ** 2)
    images = np.empty((len(every["skin"]), 3, resolution, resolution), np.uint8)
    for start in range(0, len(images), chunk):
        part = slice(start, start + chunk)
        canvas = _paint({name: value[part, None, None] for name, value in every.items()}, resolution * finer)
        if finer == 2:
            rows = canvas[:, :, 0::2] + canvas[:, :, 1::2]
            canvas = (rows[..., 0::2] + rows[..., 1::2]) * np.float32(0.25)
        # Half up: truncation would darken every image by half a grey level.
        images[part] = np.clip(canvas * np.float32(255) + np.float32(0.5), 0, 255).astype(np.uint8)
    return images


def factors(indices, seed=0):
    """The factors of the images `indices` of `seed`: a dict of float32 (N,), in the order and law of `FACTORS`."""
    uniform = _uniform(np.asarray(indices, np.uint64), seed, len(FACTORS))
    return {
        name: (factor.low + (factor.high - factor.low) * column).astype(np.float32)
        for (name, factor), column in zip(FACTORS.items(), uniform, strict=True)
    }


# SplitMix64 (Steele, Lea and Flood 2014), a bijection of 64-bit words; the streams of numpy's Generator may change.
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(word):
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


def _uniform(indices, seed, count):
    """float64 (count, N) in [0, 1): number k of image i, a hash of (seed, i, k)."""
    one = np.ones(1, np.uint64)  # arrays, as their overflow wraps in silence
    stream = _mix(_mix((np.uint64(seed) + one) * _GOLDEN) + (indices + one) * _GOLDEN)
    number = np.arange(1, count + 1, dtype=np.uint64)[:, None] * _GOLDEN
    return (_mix(stream[None] + number) >> np.uint64(11)) * 2.0**-53


def _cos_turns(turns):
    """cos(2 pi turns), float32."""
    # With z the squared angle from the nearest multiple of pi, Taylor to z^5 errs by less than 5e-7 on |angle| <= pi/2.
    turns = turns - np.floor(turns + np.float32(0.5))
    far = np.abs(turns) > 0.25
    angle = np.where(far, np.float32(0.5) - np.abs(turns), turns) * np.float32(2 * np.pi)
    z = angle * angle
    series = np.float32(-1 / 3628800)
    for term in (1 / 40320, -1 / 720, 1 / 24, -1 / 2, 1.0):
        series = series * z + np.float32(term)
    return np.where(far, -series, series)


def _colour(shade, chroma, turns):
    """An RGB colour of mean `shade` that stays within [0, 1] for chroma <= 1: three arrays."""
    reach = chroma * np.minimum(shade, 1 - shade)
    return [shade + reach * _cos_turns(turns - np.float32(c / 3)) for c in range(3)]


def _between(stops, place):
    """Piecewise linear path through equally spaced RGB `stops`, at `place` in [0, 1]: three arrays."""
    place = place * np.float32(len(stops) - 1)
    weights = [np.maximum(0, 1 - np.abs(place - np.float32(k))) for k in range(len(stops))]
    return [sum(w * np.float32(stop[c]) for w, stop in zip(weights, stops, strict=True)) for c in range(3)]


_SKIN = ((1.0, 0.87, 0.76), (0.87, 0.64, 0.46), (0.45, 0.28, 0.19))
_HAIR = ((0.09, 0.08, 0.10), (0.42, 0.26, 0.14), (0.95, 0.82, 0.48))
_IRIS = ((0.18, 0.10, 0.05), (0.08, 0.28, 0.66))


class _Canvas:
    """float32 RGB (n, 3, side, side) in [0, 1] that shapes are painted on, back to front."""

    def __init__(self, count, side):
        centres = (np.arange(side, dtype=np.float32) + np.float32(0.5)) / np.float32(side)
        self.x, self.y = centres[None, None, :], centres[None, :, None]
        self.side = np.float32(side)
        self.rgb = np.empty((count, 3, side, side), np.float32)

    def inside(self, distance):
        """Coverage of a pixel by a shape whose edge is `distance` sides away (< 0 inside): a ramp one pixel wide."""
        return np.clip(np.float32(0.5) - distance * self.side, 0, 1)

    def ellipse(self, x, y, width, height):
        """Coverage by an ellipse of these half axes. The distance is to first order, exact on the edge."""
        u, v = (self.x - x) / width, (self.y - y) / height
        gradient = np.sqrt(u * u / (width * width) + v * v / (height * height))
        return self.inside((u * u + v * v - 1) / (2 * gradient + np.float32(1e-6)))

    def fill(self, coverage, colour):
        """Lay `colour` (three levels or arrays) over what is there, as opaque as `coverage` (0 to 1)."""
        for c in range(3):
            layer = self.rgb[:, c]
            layer += coverage * (colour[c] - layer)


def _paint(f, side):
    """Draw faces of factors `f`, float32 (n, 1, 1) each: float32 (n, 3, side, side)."""
    canvas = _Canvas(len(f["skin"]), side)
    slope = f["background_slope"] * (canvas.y - np.float32(0.5))
    for c, level in enumerate(_colour(f["background_shade"], f["background_chroma"], f["background_hue"])):
        canvas.rgb[:, c] = level + slope
    skin = _between(_SKIN, f["skin"])
    hair = [
        level + f["hair_red"] * f["hair_shade"] * np.float32(tint)
        for level, tint in zip(_between(_HAIR, f["hair_shade"]), (0.05, -0.22, -0.22), strict=True)
    ]
    _paint_back(canvas, f, skin, hair)
    _paint_head(canvas, f, skin, hair)
    _paint_eyes(canvas, f)
    _paint_mouth(canvas, f, skin)
    return canvas.rgb


def _paint_back(canvas, f, skin, hair):
    """What is behind the head: the hair, an upright capsule that hugs the head's top; neck and shirt."""
    width, height = f["head_size"], f["head_size"] * f["head_length"]
    radius = width + f["hair_volume"]
    top = f["head_y"] - height + width
    beside, below = canvas.x - f["head_x"], canvas.y - top
    past = below - np.clip(below, 0, f["hair_length"])
    canvas.fill(canvas.inside(np.sqrt(beside * beside + past * past) - radius), hair)
    shirt = _colour(f["shirt_shade"], np.float32(0.8), f["shirt_hue"])
    canvas.fill(canvas.ellipse(f["head_x"], np.float32(1.06), np.float32(0.36), np.float32(0.21)), shirt)
    shadow = [level * np.float32(0.8) for level in skin]
    canvas.fill(canvas.ellipse(f["head_x"], f["head_y"] + height, width * np.float32(0.38), np.float32(0.11)), shadow)


def _paint_head(canvas, f, skin, hair):
    """The head, and the hair that falls over it down to the hair line."""
    width, height = f["head_size"], f["head_size"] * f["head_length"]
    canvas.fill(canvas.ellipse(f["head_x"], f["head_y"], width, height), skin)
    beside = canvas.x - f["head_x"]
    line = f["head_y"] - f["fringe"] * height + f["parting"] * beside + beside * beside * np.float32(1.5)
    rim = np.float32(0.008)
    scalp = canvas.ellipse(f["head_x"], f["head_y"], width + rim, height + rim)
    canvas.fill(scalp * canvas.inside(canvas.y - line), hair)


def _paint_eyes(canvas, f):
    width = f["head_size"]
    middle = f["head_x"] + f["turn"] * width
    y = f["head_y"] + np.float32(0.02)
    iris = _between(_IRIS, f["eye_colour"])
    white, black = [np.float32(0.98)] * 3, [np.float32(0.04)] * 3
    size = f["eye_size"]
    for sign in (-1, 1):
        x = middle + sign * f["eye_gap"] * width
        canvas.fill(canvas.ellipse(x, y, size, size * np.float32(1.05)), white)
        seen = x + f["eye_look"] * size * np.float32(0.34)
        canvas.fill(canvas.ellipse(seen, y, size * np.float32(0.7), size * np.float32(0.8)), iris)
        canvas.fill(canvas.ellipse(seen, y, size * np.float32(0.42), size * np.float32(0.5)), black)


def _paint_mouth(canvas, f, skin):
    """A stroke along a parabola, thickest in the middle."""
    width, rise = f["mouth_width"], f["mouth_curve"]
    along = (canvas.x - f["head_x"] - f["turn"] * f["head_size"]) / width
    level = f["head_y"] + np.float32(0.56) * f["head_size"] * f["head_length"]
    middle = level + rise * (np.float32(0.5) - along * along)
    steep = 2 * rise * along / width
    half = f["mouth_open"] * (np.float32(1.15) - np.float32(0.5) * along * along)
    distance = (np.abs(canvas.y - middle) - half) / np.sqrt(1 + steep * steep)
    ends = canvas.inside((np.abs(along) - 1) * width)
    lips = [np.float32(red) + tone * np.float32(0.3) for red, tone in zip((0.46, 0.05, 0.09), skin, strict=True)]
    canvas.fill(ends * canvas.inside(distance), lips)
