"""Any data set, by name, path or hub id, as uint8 images: decoded once, then mapped from a cache. Imports no torch."""

import contextlib
import hashlib
import os
import re
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from ..errors import InputError, check_choice, check_number
from ..files import read_json, sha256_json
from ..paths import cache_root, user_path
from ..store import note_of, stored
from . import gaussian, minifaces
from .decode import decoder
from .folders import Source, local_source
from .hub import hub_source

DRAWN = {"minifaces": minifaces.render, "gaussian": gaussian.render}
_DRAWN_SPLITS = {"train": (8192, 0), "heldout": (2048, 1)}  # images, seed
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)
_HASHED_BYTES = 1_000_000_000  # of larger files in the cache, size and time of change are looked at

# No hub id is known that gives these images and no others: what to put where.
BY_HAND = {
    "celebahq": "CelebA-HQ is not downloaded: give DATASET=folder (--dataset) with its 30,000 images",
    "afhqdog": "AFHQ is not downloaded: give DATASET=folder (--dataset), its folder train/dog of 4,739 images",
}
KNOWN = (*DRAWN, "uoft-cs/cifar10", "merkol/ffhq-256", "huggan/metfaces", "ILSVRC/imagenet-1k", *BY_HAND)


@dataclass(frozen=True, eq=False)
class ImageSet:
    """A split of a data set: `images` uint8 (N, 3, R, R), read-only and mapped from disk.

    `fingerprint` is the sha256 of shape and pixels: the same for the same images, whatever kind of files they came in.
    `labels` are the classes of the images, int64 (N,), and `labels_fingerprint` their sha256, where asked for.
    """

    images: np.ndarray = field(repr=False)
    name: str
    fingerprint: str
    labels: np.ndarray | None = field(default=None, repr=False)
    labels_fingerprint: str | None = None

    def first_labels(self, count):
        """The labels of the first `count` images, int64 (count,), or None where there are none."""
        return None if self.labels is None else self.labels[:count]

    @property
    def identity(self):
        """What a run's configuration says of its data: the fingerprints of the images, and of labels if it has any."""
        labels = {} if self.labels is None else {"labels_fingerprint": self.labels_fingerprint}
        return {"data_fingerprint": self.fingerprint, **labels}


def load_images(dataset, resolution, split="train", progress=True, classes=None):
    """The images of a data set, uint8 (N, 3, resolution, resolution), as an `ImageSet`.

    `dataset` is "minifaces" or "gaussian"; the path of a folder of images, of a folder of parquet shards in the hub's
    layout, or of one parquet file; or a hub id, owner/name. `split` is "train" or "heldout": drawn with another seed,
    or what is called test, else validation. Returns None where there are no held-out images. Images are decoded once
    (`decode.decode`) and kept under `paths.cache_root()`. They are decoded again if the files' names, sizes or times,
    the hub's commit, or the versions of Pillow and its codecs are others, or the kept file is damaged.

    With `classes`, the number of them, the images come with their labels: of a column of whole numbers, or by
    sub-folder. Held-out images without labels, which the hub marks by -1, come without.

    Raises InputError for an unknown data set, one without images or with fewer than two, a broken image (named), a hub
    that cannot be reached, a resolution outside 4 .. 1024, training images without labels, and a label outside
    0 .. classes - 1.
    """
    resolution = int(check_number("resolution", resolution, minimum=4, maximum=1024, integer=True))
    check_choice("split", split, _DRAWN_SPLITS)
    source = _find_source(str(dataset), resolution, split)
    if source is None:
        return None
    # The labels first: that there are none is said now, not after hours of decoding.
    labels = None if classes is None else _checked(source.labels(), classes, source.name, split)
    images, fingerprint = _decoded(source, resolution, split, progress)
    if labels is None:
        return ImageSet(images, source.name, fingerprint)
    digest = hashlib.sha256(f"{labels.dtype} {len(labels)}\n".encode() + labels.tobytes()).hexdigest()
    return ImageSet(images, source.name, fingerprint, labels, digest)


def _find_source(dataset, resolution, split):
    """The `Source` of a data set, or None where it has no such split."""
    if dataset in DRAWN:
        return _drawn(dataset, resolution, split)
    if dataset and os.path.exists(user_path(dataset)):
        return local_source(dataset, split)
    if dataset in BY_HAND:
        raise InputError(BY_HAND[dataset])
    if not _HUB_ID.fullmatch(dataset):
        check_choice("data set (or an existing path, or a hub id, owner/name)", dataset, KNOWN)
    return hub_source(dataset, split)


def _drawn(name, resolution, split):
    render, (count, seed) = DRAWN[name], _DRAWN_SPLITS[split]
    # The first images stand for the code that draws them: when it changes, the cache must not answer for it.
    first = hashlib.sha256(render(range(4), resolution, seed)).hexdigest()

    def draw():
        for start in range(0, count, 256):
            yield from render(range(start, min(start + 256, count)), resolution, seed)

    return Source(name, {name: seed, "first": first}, lambda resolution: (count, draw()), drawn=True)


def _checked(labels, classes, name, split):
    """Return labels that fit a network of `classes` classes, or None for held-out images that have none."""
    if split == "heldout" and (labels is None or (labels == -1).all()):  # as the hub marks that there is none
        return None
    network = f"the network's num_class_embeds {classes}"
    if labels is None:
        where = "they are a column of whole numbers called label, or a sub-folder for each class"
        raise InputError(f"data set {name} has no class labels for {network}; {where}")
    outside = labels[(labels < 0) | (labels >= classes)]
    if len(outside):
        raise InputError(f"data set {name} has the label {outside[0]}; it must be 0 .. {classes - 1} for {network}")
    return labels


def _decoded(source, resolution, split, progress):
    """(uint8 (N, 3, R, R) mapped from disk, fingerprint) of a `Source`, decoded once."""
    inputs = {"source": source.identity, "split": split, "resolution": resolution}
    name = re.sub(r"[^\w.-]", "_", source.name, flags=re.ASCII)[-40:]
    path = cache_root() / "images" / f"{name}-{sha256_json(inputs)[:24]}.npy"
    inputs["decoder"] = None if source.drawn else decoder()
    facts = {}
    if not _untouched(path, inputs):
        stored(path, inputs, lambda to: facts.update(_decode_to(to, source, resolution, progress)), facts=lambda: facts)
    return np.load(path, mmap_mode="r", allow_pickle=False), read_json(note_of(path))["fingerprint"]


def _untouched(path, inputs):
    """Whether a file too large to be hashed at each start has the recorded inputs, size and time of change."""
    with contextlib.suppress(InputError, OSError, KeyError, TypeError):
        note, stat = read_json(note_of(path)), path.stat()
        same = [note["inputs"], note["file"]] == [inputs, [stat.st_size, stat.st_mtime_ns]]
        return same and stat.st_size > _HASHED_BYTES
    return False


def _decode_to(path, source, resolution, progress):
    """Write a source's images as a .npy file, one after the other, and return what its note says of them."""
    name, (count, images) = source.name, source.open(resolution)
    if count < 2:
        raise InputError(f"data set {name} holds {count} images; it must hold at least 2")
    shape = (count, 3, resolution, resolution)
    digest = hashlib.sha256(f"uint8 {'x'.join(map(str, shape))}\n".encode())
    bar = {"desc": f"decoding {name}", "unit": "image", "delay": 5, "mininterval": 2, "leave": False}
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for image in tqdm(images, total=count, disable=not progress, **bar):
            file.write(image)
            digest.update(image)
    stat = path.stat()
    return {"name": name, "fingerprint": digest.hexdigest(), "file": [stat.st_size, stat.st_mtime_ns]}
