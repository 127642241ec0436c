"""Encoded images become the right pixels; metadata that nobody can read do not spoil them."""

import numpy as np
import pytest
from pictures import chw, encoded, picture, png, save
from PIL import Image, ImageOps

from debiaslib.data import decode as decoding
from debiaslib.data.decode import SUFFIXES, decode
from debiaslib.data.images import load_images
from debiaslib.errors import InputError

RGB = picture(0)


def test_modes():
    grey, image = RGB[..., 0], Image.fromarray(RGB)
    wide = grey.astype(np.uint16) * 257
    for array, wanted in ((np.dstack([RGB, grey]), RGB), (grey, np.dstack([grey] * 3)), (wide, np.dstack([grey] * 3))):
        assert np.array_equal(decode(png(array), 8), chw(wanted))
    palette = image.quantize(16)
    assert np.array_equal(decode(png(np.asarray(palette.convert("RGB"))), 8), chw(np.asarray(palette.convert("RGB"))))
    assert decode(encoded(np.dstack([RGB, grey]), "WEBP", lossless=True), 8).shape == (3, 8, 8)
    with pytest.raises(InputError, match="mode 'F'"):
        decode(encoded(np.zeros((8, 8), np.float32), "TIFF"), 8)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_every_orientation(kind):
    for orientation in range(10):
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encoded(picture(1, (8, 13)), kind, exif=exif)
        with Image.open(decoding.io.BytesIO(data)) as image:
            wanted = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        top, left = (side // 2 for side in (wanted.shape[0] - 8, wanted.shape[1] - 8))
        assert np.array_equal(decode(data, 8), chw(wanted[top : top + 8, left : left + 8])), orientation


def test_cut_and_resized():
    assert np.array_equal(decode(png(picture(1, (8, 13))), 8), chw(picture(1, (8, 13))[:, 2:10]))
    for size, cut in (((40, 30), np.s_[5:35]), ((3, 5), np.s_[:, 1:4])):
        square = Image.fromarray(picture(2, size)[cut])
        if square.width == 30:  # halved once, by area averages; 15 is less than twice 8
            square = square.resize((15, 15), Image.Resampling.BOX)
        wanted = square.resize((8, 8), Image.Resampling.BICUBIC)
        assert np.array_equal(decode(png(picture(2, size)), 8), chw(np.asarray(wanted)))


def test_half_the_size_is_the_area_average():
    whole = picture(5, (32, 32))
    wanted = whole.reshape(16, 2, 16, 2, 3).mean(axis=(1, 3))
    assert abs(decode(png(whole), 16) - chw(wanted)).max() <= 1  # two passes, each rounded


@pytest.mark.parametrize("garbage", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff"])
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_garbage_in_place_of_metadata(kind, garbage):
    plain = decode(encoded(RGB, kind), 8)
    assert np.array_equal(decode(encoded(RGB, kind, exif=garbage), 8), plain)


def test_the_suffixes_are_those_of_the_readers():
    Image.init()
    assert {end for end, kind in Image.registered_extensions().items() if kind in decoding._FORMATS} >= set(SUFFIXES)
    assert not {"EPS", "PDF", "WMF"} & set(decoding._FORMATS)


KINDS = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP", "TIF": "TIFF", "gif": "GIF",
         "avif": "AVIF", "jp2": "JPEG2000", "ppm": "PPM", "bmp": "BMP"}  # fmt: skip


def test_every_format_is_read_alone_and_beside_others(tmp_path):
    for number, (suffix, kind) in enumerate(KINDS.items()):
        for folder in (suffix, "all"):
            for i in range(2):
                save(tmp_path / folder / f"{number:02d}{i}.{suffix}", picture(i), format=kind)
        assert len(load_images(tmp_path / suffix, 8).images) == 2
    found = load_images(tmp_path / "all", 8).images
    assert len(found) == 2 * len(KINDS) and np.array_equal(found[6], chw(picture(0)))


def test_large_images_keep_their_order_over_threads(tmp_path):
    for i in range(9):
        save(tmp_path / f"x/{i}.png", picture(i, 160))  # 77 kB each
    images = load_images(tmp_path / "x", 160).images
    assert all(np.array_equal(images[i], chw(picture(i, 160))) for i in range(9))
