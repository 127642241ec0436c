"""Data sets that are none: each is refused in one line that names the thing, and nothing is written.

Files that would run code are in test_strangers.py.
"""

import struct
import zlib
from functools import partial

import numpy as np
import pytest
from pictures import folder_of, picture, png, save, write_parquet

from debiaslib import load_images


def huge_png(width, height):
    """A PNG of a few bytes that says it has so many pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


BROKEN = {
    "zero": b"",
    "cut": png(picture(0, 64))[:-400],
    "bomb": huge_png(100_000, 100_000),
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg' width='8' height='8'/>",
}


@pytest.fixture
def images(tally):
    """The working folder, with folders and files of bad images and parquet files of all the wrong kinds."""
    root = tally.watched / "work"
    folder_of(root / "good")
    folder_of(root / "one", 1)
    (root / "empty").mkdir()
    folder_of(root / "heldout/test")
    for name, content in BROKEN.items():
        folder_of(root / name)
        (root / name / "sub").mkdir()
        (root / name / "sub" / f"{name}.png").write_bytes(content)
    folder_of(root / "float")
    save(root / "float/float.png", np.zeros((8, 8), np.float32), format="TIFF")
    (folder_of(root / "dangling") / "9.png").symlink_to(root / "nowhere")
    (root / "array.npy").write_bytes(b"no images")
    write_tables(root)
    return root


def write_tables(root):
    import pyarrow as pa
    import pyarrow.parquet as pq

    good = png(picture(0))
    (root / "no.parquet").write_bytes(b"PAR1 and nothing else")
    pq.write_table(pa.table({"label": [1, 2], "text": ["a", "b"]}), root / "words.parquet")
    write_parquet(root / "rows/train-00000-of-00001.parquet", [good] * 20 + [good[:50]])
    write_parquet(root / "holes/train.parquet", [good, None, good])
    write_parquet(root / "half/train-00000-of-00002.parquet", [good] * 2)
    for config in "ab":
        write_parquet(root / f"two/{config}/train.parquet", [good] * 2)
    labelled = write_parquet(root / "labelled.parquet", [good] * 3)  # labels 0, 1, 2
    whole = labelled.read_bytes()
    (root / "pages.parquet").write_bytes(whole[:4] + bytes(len(whole) // 2) + whole[4 + len(whole) // 2 :])


DATASETS = [  # (data set, what else is given, what the line must hold)
    ("minifacse", {}, "'minifacse'", "did you mean 'minifaces'?"),
    ("cifar10", {}, "'cifar10'", "did you mean 'uoft-cs/cifar10'?"),
    ("", {}, "''", "owner/name"),
    ("celebahq", {}, "CelebA-HQ", "DATASET=folder"),
    ("nowhere/at/all", {}, "'nowhere/at/all'", "an existing path"),
    ("~nobody-of-this-name/x", {}, "'~nobody-of-this-name/x'", "an existing path"),
    ("nul\0", {}, "'nul", "an existing path"),
    ("x" * 3000, {}, "'xxx", "an existing path"),
    ("array.npy", {}, "array.npy", "is damaged, or cannot be read"),
    ("no.parquet", {}, "no.parquet", "is damaged, or cannot be read"),
    ("pages.parquet", {}, "pages.parquet", "is damaged, or cannot be read"),
    ("pages.parquet", {"classes": 3}, "pages.parquet", "is damaged, or cannot be read"),
    ("dangling", {}, "dangling/9.png", "is damaged, or cannot be read"),
    ("words.parquet", {}, "words.parquet", "no column of images; its columns: label, text"),
    ("rows", {}, "row 20 (from 0)", "train-00000-of-00001.parquet"),
    ("holes", {}, "row 1 (from 0)", "holds no image"),
    ("half", {}, "lacks the shard train-00001-of-00002.parquet", "get the whole data set"),
    ("two", {}, "holds several data sets (a, b)", "give the path of one"),
    ("empty", {}, "'empty' holds no images", ".png .jpg .jpeg .jfif .webp"),
    ("heldout", {}, "'heldout' holds held-out images only", "training images"),
    ("one", {}, "one holds 1 images", "at least 2"),
    *[(name, {}, f"{name}/sub/{name}.png", "is broken") for name in BROKEN],
    ("float", {}, "float/float.png", "8 bits a channel, 16-bit grey"),
    ("good", {"resolution": 3}, "resolution is 3", ">= 4 and <= 1024"),
    ("gaussian", {"resolution": 64}, "Gaussian images is 64", "<= 32"),
    ("good", {"split": "valid"}, "split 'valid'", "known: train, heldout"),
    ("good", {"classes": 10}, "good has no class labels", "a sub-folder for each class"),
    ("minifaces", {"classes": 10, "resolution": 8}, "minifaces has no class labels", "num_class_embeds 10"),
    ("labelled.parquet", {"classes": 2}, "labelled has the label 2", "0 .. 1"),
]


def test_every_bad_data_set_is_one_line(tally, images):
    for dataset, more, *parts in DATASETS:
        call = partial(load_images, dataset, **{"resolution": 8, "progress": False, **more})
        tally.refused(f"{dataset!r:.40}, {more}", call, *parts)
    assert load_images("good", 8).images.shape == (3, 3, 8, 8)
    tally.settle()
