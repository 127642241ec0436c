"""From an encoded image to uint8 (3, R, R): turned, RGB, the central square, resized. Imports no torch."""

import io
import itertools
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image, UnidentifiedImageError, features

from ..errors import InputError

# Pillow's other readers stay shut: some start other programs, and none is usual in data sets.
_FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "JPEG2000", "GIF", "TIFF", "PPM", "BMP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".avif", ".jp2", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".bmp")
_RULE = 2  # a new way to decode needs a new number
_CODECS = ("pil", "jpg", "libjpeg_turbo", "jpg_2000", "zlib", "libtiff", "webp", "avif")


def decoder():
    """What decides the pixels beside the files: our rule and the versions of Pillow and its codecs. JSON-native."""
    return {"rule": _RULE, **{name: features.version(name) for name in _CODECS}}


def decode(data, resolution, where="the image"):
    """One encoded image (bytes) as uint8 (3, resolution, resolution).

    EXIF orientation is applied. Any mode becomes RGB as Pillow's convert("RGB") has it (grey repeated, alpha dropped,
    not blended); 16-bit grey is scaled to 8 bits. Then the largest central square is cut out. It is halved by
    area averages while it has twice the size, then resized bicubically. One that has the size already stays lossless.
    Raises InputError that says `where` a broken image is.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            image.load()
            return _to_array(_to_rgb(_turned(image)), resolution)
    except UnidentifiedImageError:
        raise InputError(f"{where} is broken: it is no image that can be read") from None
    except Exception as error:  # a damaged file makes Pillow's readers raise nearly anything
        raise InputError(f"{where} is broken: {str(error) or type(error).__name__}") from None


def decode_all(items, resolution):
    """Decode (where, bytes), keeping their order. Raises InputError as `decode`."""
    items = iter(items)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        while chunk := list(itertools.islice(items, 32)):
            # Pillow frees the interpreter while it works; for small images threads cost more than they gain.
            large = len(chunk[0][1]) > 1 << 16
            yield from (pool.map if large else map)(lambda item: decode(item[1], resolution, item[0]), chunk)


def _turned(image):
    """The image as its EXIF orientation wants it. Metadata that cannot be read do not spoil good pixels."""
    try:  # not ImageOps.exif_transpose, which writes all other tags again, and fails at one that is wrong
        orientation = image.getexif().get(0x0112)
    except Exception:
        return image
    names = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270",
             7: "TRANSVERSE", 8: "ROTATE_90"}  # fmt: skip
    return image.transpose(Image.Transpose[names[orientation]]) if orientation in names else image


def _to_rgb(image):
    if image.mode.startswith("I;16"):  # convert("RGB") would clip: nearly all white
        return Image.fromarray((np.asarray(image, np.float32) / 257 + 0.5).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise InputError(f"its mode {image.mode!r} does not say what is white; allowed: 8 bits a channel, 16-bit grey")
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_array(image, resolution):
    side = min(image.size)
    if image.size != (side, side):
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    while image.width >= 2 * resolution:  # the authors' rule, as in guided-diffusion: 32 to 16 is an area average
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    if image.width != resolution:
        image = image.resize((resolution, resolution), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))
