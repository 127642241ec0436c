"""Any data set, by name, path or hub id, as uint8 images: decoded once, then mapped from a cache. Imports no torch."""

import contextlib
import hashlib
import os
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..errors import InputError, check_choice, check_number
from ..files import atomic_path, exclusive, read_json, sha256_json, write_json
from ..paths import cache_root, user_path
from . import gaussian as gaussian_images
from . import minifaces
from .decoding import Source, decoder_hash, local_source
from .labels import checked_labels, stored_labels

__all__ = ["ImageSet", "load_images"]

SPLITS = ("train", "heldout")
_FORMAT = 1  # of the cache; a new way to decode needs a new number
_DRAWN = {"minifaces": minifaces.render, "gaussian": gaussian_images.render}
_DRAWN_SPLITS = {"train": (8192, 0), "heldout": (2048, 1)}  # images, seed
_VERIFIED_BYTES = 1_000_000_000
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)


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
    central square and resized by Lanczos; those that have the size already are taken as they are (`decoding.decode`).
    This is done once: the result lies under `paths.cache_root()`, by resolution and by the files' names, sizes and
    times or the hub's commit; where an update of the libraries has changed what `decode` makes of an image it is done
    again. At each loading the sha256 of the whole is verified if it is smaller than 1 GB, or if the file's size or
    times are not those of when it was last verified whole; of a larger one that nobody has written to since, the size
    and 64 blocks of 1 MiB are. A damaged one is made again, with a line on stderr.

    With `classes`, the number of them, the images come with their labels: of a column of whole numbers (`label_column`)
    or by sub-folder. Held-out images without labels, which the hub marks by -1, come without.

    Raises InputError for an unknown data set, one without images or with fewer than two, a broken image (named), a hub
    that cannot be reached, a resolution outside 4 .. 1024, a cache that cannot be written, training images without
    labels, and a label outside 0 .. classes - 1.
    """
    check_number("resolution", resolution, minimum=4, maximum=1024, integer=True)
    check_choice("split", split, SPLITS)
    source = _find_source(str(dataset), resolution, split)
    if source is None:
        return None
    key = sha256_json({"format": _FORMAT, "split": split, "resolution": resolution, "source": source.identity})[:32]
    path = _cache() / f"{key}.npy"
    if classes is not None:
        check_number("classes", classes, minimum=1, integer=True)
        if split == "train" and not path.exists():  # now, not after hours of decoding
            checked_labels(source.labels(), classes, source.name)
    found = _decoded(str(dataset), source, path, resolution, split, progress)
    return found if found is None or classes is None else _labelled(found, source, path, classes)


def _labelled(found, source, path, classes):
    """The same images with their labels."""
    with _writing(path), exclusive(path.with_suffix(".lock"), f"the labels of {source.name}"):
        labels, fingerprint = stored_labels(path, len(found.images), source.labels)
    if found.split == "heldout" and (labels is None or (labels == -1).all()):
        return found
    return replace(found, labels=checked_labels(labels, classes, source.name), labels_fingerprint=fingerprint)


def _decoded(dataset, source, path, resolution, split, progress):
    """The `ImageSet` of a source, from the cache or decoded into it; None where there turns out to be no such split."""
    found, _ = _cached(path, source, split)
    if found is not None:
        return found
    with _writing(path), exclusive(path.with_suffix(".lock"), f"the images of {source.name}"):
        found, problem = _cached(path, source, split)  # another process may have made it meanwhile
        if found is not None:
            return found
        if problem:
            print(f"cached images of {source.name} are {problem}; decoding again", file=sys.stderr, flush=True)
        opened = source.open(resolution)
        if opened is None:
            return None
        record = _decode_to(path, source, *opened, resolution, progress)
        if "path" in source.identity and _find_source(dataset, resolution, split).identity != source.identity:
            raise InputError(f"the files of data set {dataset!r} changed while they were read; try again")
        record = {"name": source.name, "split": split, "source": source.identity, **_decoder(source), **record}
        write_json(path.with_suffix(".json"), {**record, "file": _file_state(path)})
    found, problem = _cached(path, source, split)
    if found is None:
        raise InputError(f"the cache {str(path)!r} right after it was written: {problem}; check the disk")
    return found


def _find_source(dataset, resolution, split):
    """The `Source` of a data set, or None where it has no such split."""
    if dataset in _DRAWN:
        return _drawn(dataset, resolution, split)
    if dataset and os.path.exists(user_path(dataset)):
        return local_source(dataset, split)
    if dataset in BY_HAND:
        raise InputError(BY_HAND[dataset])
    if _HUB_ID.fullmatch(dataset):
        from .hub import hub_source  # it is the only one that needs the hub's libraries

        return hub_source(dataset, split, lambda: _decoded_revisions(dataset, resolution, split))
    if Path(dataset).name != dataset or dataset.startswith("~"):
        raise InputError(f"data set {dataset!r} is neither an existing path nor a hub id, which looks like owner/name")
    known = [*_DRAWN, *sorted({*IMAGES} - {*_DRAWN})]
    try:
        check_choice("data set", dataset, known)
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


def _decoder(source):
    return {} if source.drawn else {"decoder": decoder_hash()}


def _cache():
    return cache_root() / "images"


def _cached(path, source, split):
    """(ImageSet or None, what is wrong with it or None) of a cache entry."""
    try:
        record = read_json(path.with_suffix(".json"))
        if record is None:
            return None, None
        if record.get("decoder") not in (None, _decoder(source).get("decoder")):
            return None, "of libraries that decode in another way"
        images = np.load(path, mmap_mode="r", allow_pickle=False)
        if [list(images.shape), images.dtype] != [record["shape"], np.uint8]:
            return None, "damaged: its shape is not the recorded one"
        state = _file_state(path)
        untouched = record.get("file") == state and images.nbytes >= _VERIFIED_BYTES
        if (_sample(images) if untouched else _fingerprint(images)) != record["sample" if untouched else "fingerprint"]:
            return None, "damaged: its sha256 is not the recorded one"
    except FileNotFoundError:
        return None, "damaged: the images are missing"
    except InputError:
        return None, "damaged: their note is not what was written"
    except Exception as error:  # numpy's reader of headers raises nearly anything
        return None, "damaged: " + " ".join(str(error).split())
    if record.get("file") != state:
        with contextlib.suppress(OSError):  # a cache that others may only read is hashed whole each time
            write_json(path.with_suffix(".json"), {**record, "file": state})
    return ImageSet(images, source.name, record["fingerprint"], split), None


def _file_state(path):
    """Size and times of a file, the inode's too, which no tool sets back: others once anything has been written."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def _new_digest(shape):
    return hashlib.sha256(("uint8 " + "x".join(map(str, shape)) + "\n").encode())


def _fingerprint(images):
    digest = _new_digest(images.shape)
    digest.update(images)
    return digest.hexdigest()


def _sample(images):
    """sha256 over shape and 64 blocks of 1 MiB, the first and the last among them."""
    digest, pixels = _new_digest(images.shape), images.reshape(-1)
    for start in np.linspace(0, max(0, pixels.size - (1 << 20)), 64).astype(np.int64):
        digest.update(pixels[start : start + (1 << 20)])
    return digest.hexdigest()


def _decode_to(path, source, count, images, resolution, progress):
    """Write `count` images as a .npy file and return what its record says of them.

    They are written one after the other, not through a mapping: a full disk is then an error, not the end of the
    process, and memory stays flat.
    """
    from tqdm import tqdm

    shape = (count, 3, resolution, resolution)
    _check_room(path.parent, source.name, shape)
    digest, written = _new_digest(shape), 0
    for leftover in path.parent.glob(f".{path.stem}-*"):  # of a process that was killed: we hold the lock
        leftover.unlink(missing_ok=True)
    shown = {"desc": f"decoding {source.name}", "unit": "image", "delay": 5, "mininterval": 2, "leave": False}
    bar = tqdm(images, total=count, disable=not progress, **shown)
    with atomic_path(path) as temporary:
        with open(temporary, "wb") as file, contextlib.closing(bar):
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            for image in bar:
                file.write(image)
                digest.update(image)
                written += 1
        if written != count:
            raise InputError(f"data set {source.name} gave {written} images where {count} were announced; get it again")
        mapped = np.load(temporary, mmap_mode="r", allow_pickle=False)
        return {"shape": list(shape), "fingerprint": digest.hexdigest(), "sample": _sample(mapped)}


def _check_room(folder, name, shape):
    if shape[0] < 2:
        raise InputError(f"data set {name} holds {shape[0]} images; it must hold at least 2")
    needed, free = int(np.prod(shape, dtype=np.int64)), shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"the images of {name} need {needed / 1e9:.1f} GB and {str(folder)!r} has {free / 1e9:.1f} GB left; "
            "set DEBIASLIB_CACHE to a folder with more room"
        )


@contextlib.contextmanager
def _writing(path):
    """Turn what the system says of an unusable cache folder into one line."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
        yield
    except OSError as error:
        raise InputError(
            f"the cache folder {str(path.parent)!r} cannot be written ({error.strerror or error}); "
            "set DEBIASLIB_CACHE to a folder that can"
        ) from None


def _decoded_revisions(hub_id, resolution, split):
    """Commits of a hub data set that the cache holds decoded, the newest last."""
    found = []
    for file in _cache().glob("*.json"):
        with contextlib.suppress(InputError, OSError, KeyError, TypeError, AttributeError):
            record = read_json(file)
            if [record["source"].get("hub"), record["split"], record["shape"][-1]] == [hub_id, split, resolution]:
                found.append((os.stat(file).st_mtime_ns, record["source"]["revision"]))
    return [revision for _, revision in sorted(found)]
