"""Any data set, by name, path or hub id, as uint8 images: decoded once, then mapped from a cache. Imports no torch."""

import hashlib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import InputError, check_choice, check_number, shown
from ..paths import user_path
from . import gaussian, minifaces
from .cache import Cached
from .folders import Source, local_source

__all__ = ["ImageSet", "Pixels", "load_images"]

SPLITS = ("train", "heldout")
_DRAWN = {"minifaces": minifaces.render, "gaussian": gaussian.render}
_DRAWN_SPLITS = {"train": (8192, 0), "heldout": (2048, 1)}  # images, seed
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)
ON_DEVICE_BYTES = 2 << 30  # a data set up to this size lives on the device as uint8

# No hub id is known that gives these images and no others: what to put where.
BY_HAND = {
    "celebahq": "CelebA-HQ is not downloaded: give DATASET=folder (--dataset) with its 30,000 images",
    "afhqdog": "AFHQ is not downloaded: give DATASET=folder (--dataset), its folder train/dog of 4,739 images",
}
# Training images, for estimates before there are any. FFHQ is somebody's 256x256 copy: how it was scaled is not said.
IMAGES = {
    "minifaces": 8_192,
    "gaussian": 8_192,
    "uoft-cs/cifar10": 50_000,
    "merkol/ffhq-256": 70_000,
    "celebahq": 30_000,
    "afhqdog": 4_739,
    "huggan/metfaces": 1_336,
    "ILSVRC/imagenet-1k": 1_281_167,
}


@dataclass(frozen=True, eq=False)
class ImageSet:
    """A split of a data set: `images` uint8 (N, 3, R, R), read-only and mapped from disk.

    `fingerprint` is the sha256 of shape and pixels: the same for the same images, whatever kind of files they came in.
    `labels` are the classes of the images, int64 (N,), and `labels_fingerprint` their sha256, where asked for.
    """

    images: np.ndarray = field(repr=False)
    name: str
    fingerprint: str
    split: str = "train"
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
    or what is called test, else validation. Returns None where there are no held-out images.

    Images are turned by their EXIF orientation, converted to RGB (grey repeated, alpha dropped), cut to the largest
    central square and resized as the authors do (`decode.decode`). The result lies under `paths.cache_root()`. It is
    made again if the files' names, sizes or times, the hub's commit, or the versions of Pillow and its codecs are
    others, or if it is damaged: its sha256 is verified at each loading, above 1 GB its size and time of change. Files
    that are no images are left out, with a line on stderr.

    With `classes`, the number of them, the images come with their labels: of a column of whole numbers, or by
    sub-folder. Held-out images without labels, which the hub marks by -1, come without.

    Raises InputError for an unknown data set, one without images or with fewer than two, a broken image (named), a hub
    that cannot be reached, a resolution outside 4 .. 1024, a cache that cannot be written, training images without
    labels, and a label outside 0 .. classes - 1.
    """
    check_number("resolution", resolution, minimum=4, maximum=1024, integer=True)
    check_choice("split", split, SPLITS)
    if classes is not None:
        check_number("classes", classes, minimum=1, integer=True)
    source = _find_source(str(dataset), resolution, split)
    if source is None:
        return None
    # The labels first: that there are none is said now, not after hours of decoding.
    labels = None if classes is None else _checked(source.labels(), classes, source.name, split)
    found = Cached(source, resolution, split).images(progress)
    if found is None or labels is None:
        return found and ImageSet(found[0], source.name, found[1], split)
    if len(labels) != len(found[0]):
        raise InputError(f"{source.name} has {len(found[0])} images and {len(labels)} labels; get it again")
    digest = hashlib.sha256(f"{labels.dtype} {len(labels)}\n".encode() + labels.tobytes()).hexdigest()
    return ImageSet(found[0], source.name, found[1], split, labels, digest)


def _find_source(dataset, resolution, split):
    """The `Source` of a data set, or None where it has no such split."""
    if dataset in _DRAWN:
        return _drawn(dataset, resolution, split)
    if dataset and os.path.exists(user_path(dataset)):
        return local_source(dataset, split)
    if dataset in BY_HAND:
        raise InputError(BY_HAND[dataset])
    if _HUB_ID.fullmatch(dataset):
        from .hub import hub_source

        return hub_source(dataset, split)
    if Path(dataset).name != dataset or dataset.startswith("~"):
        raise InputError(f"data set {dataset!r} is neither an existing path nor a hub id, which looks like owner/name")
    try:
        check_choice("data set", dataset, IMAGES)
    except InputError as error:
        raise InputError(f"{error}, or an existing path, or a hub id, which looks like owner/name") from None


def _drawn(name, resolution, split):
    render, (count, seed) = _DRAWN[name], _DRAWN_SPLITS[split]
    # The first images stand for the code that draws them: when it changes, the cache must not answer for it.
    first = hashlib.sha256(render(range(4), resolution, seed)).hexdigest()

    def draw():
        for start in range(0, count, 256):
            yield from render(range(start, min(start + 256, count)), resolution, seed)

    return Source(name, {name: seed, "first": first}, lambda resolution: (count, draw()), drawn=True)


def _checked(labels, classes, name, split):
    """Return labels that fit a network of `classes` classes, or None for held-out images that have none."""
    labels = np.zeros(0, np.int64) if labels is None else labels
    if split == "heldout" and (labels == -1).all():  # as the hub marks that there is none
        return None
    network = f"the network's num_class_embeds {shown(classes)}"
    if len(labels) == 0:
        where = "they are a column of whole numbers called label, or a sub-folder for each class"
        raise InputError(f"data set {name} has no class labels for {network}; {where}")
    outside = labels[(labels < 0) | (labels >= classes)]
    if len(outside):
        raise InputError(f"data set {name} has the label {outside[0]}; it must be 0 .. {classes - 1} for {network}")
    return labels


class Pixels:
    """Rows of `images`, uint8 (N, C, H, W), an array or a memory map; batches of them lie on `device`.

    Images of up to `limit` bytes are copied to the device. Of larger data each batch is read from the file, which the
    system's page cache keeps in memory as far as there is room.
    """

    def __init__(self, images, device="cpu", limit=ON_DEVICE_BYTES):
        import torch

        self.images, self.device = images, torch.device(device)
        self.resident = torch.from_numpy(np.array(images)).to(device) if images.nbytes <= limit else None

    def __len__(self):
        return len(self.images)

    def take(self, index):
        """The rows `index` (int64 (B,) on the CPU), uint8 (B, C, H, W)."""
        import torch

        if self.resident is not None:
            return self.resident[index.to(self.device, non_blocking=self.device.type == "cuda")]
        rows, order = torch.unique(index, return_inverse=True)  # read in the order of the file
        batch = torch.from_numpy(self.images[rows.numpy()])[order]
        return batch.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else batch
