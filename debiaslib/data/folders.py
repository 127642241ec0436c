"""Local data sets: images in folders, or parquet shards, by split and class. Imports no torch.

Not `datasets`' imagefolder: it takes a file called test_1.png for a split of its own, and drops the others in silence.
"""

import collections
import hashlib
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..paths import user_path
from .decode import SUFFIXES, decode_all
from .tables import check_shards, open_shards, shard_labels

HELD_OUT = ("test", "validation")
_SPLIT_NAMES = {name: name for name in ("train", *HELD_OUT)} | {"valid": "validation", "val": "validation"}


@dataclass(frozen=True)
class Source:
    """A split before decoding: equal `identity` (JSON-native) means equal images.

    `open(resolution)` gives (N, iterator of N arrays uint8 (3, R, R)), or None if there turns out to be no such split.
    `labels()` gives their class labels, int64 (N,), or None where there are none. `drawn`: by our code, not decoded.
    """

    name: str
    identity: dict
    open: Callable
    labels: Callable = lambda: None
    drawn: bool = False


def local_source(path, split):
    """The `Source` of the folder or parquet file at `path`, or None where it has no held-out images.

    A folder holds images, in sub-folders or not, or parquet shards in the hub's layout. "train" is what lies in train/
    (for shards: or is called train-*), else everything that is not held out; "heldout" is test, else validation or val.
    Raises InputError if there is nothing to read, or a shard is missing.
    """
    root = user_path(path).resolve()
    if root.is_file():
        return _parquet(root.stem, root, [root]) if split == "train" else None
    left_out = _walk(root)
    images = sorted(file for suffix in SUFFIXES for file in left_out.pop(suffix, []))
    shards = left_out.pop(".parquet", [])
    if shards and images:
        left_out["images beside parquet files"] = images
    files = _of_split(shards or images, root, split)
    if files and shards:
        check_shards(files, root)
        return _parquet(root.name, root, files, left_out)
    if files:
        return _images(root, files, _of_split(images, root, "train"), left_out)
    if split != "train":
        return None
    if shards or images:
        raise InputError(f"the folder {str(path)!r} holds held-out images only; it must hold training images")
    looked = "png, jpg, jpeg, webp, bmp, gif, tif, avif, jp2, ppm"
    raise InputError(f"the folder {str(path)!r} holds no images; looked for {looked}, and for parquet files")


def _parquet(name, root, files, left_out=()):
    def start(resolution):
        _tell(left_out, root)
        return open_shards(files, resolution)

    return Source(name, _identity(root, files), start, lambda: shard_labels(files))


def _images(root, files, trained, left_out):
    def start(resolution):
        _tell(left_out, root)
        return len(files), decode_all(_contents(files), resolution)

    return Source(root.name, _identity(root, files), start, lambda: _folder_labels(files, trained, root))


def _tell(left_out, root):
    """left_out: {kind: files}."""
    if left_out:
        count = sum(map(len, left_out.values()))
        kinds = ", ".join(f"{len(files)} {kind}" for kind, files in sorted(left_out.items()))
        print(f"left out {count} file{'s' * (count > 1)} of {str(root)!r}: {kinds}", file=sys.stderr, flush=True)


def _walk(root):
    """{suffix in small letters: sorted files} of all files under `root`, through links; hidden ones do not count."""
    found, seen = collections.defaultdict(list), set()

    def fail(error):
        raise InputError(f"the folder {error.filename!r} cannot be read: {error.strerror}")

    for folder, folders, files in os.walk(root, followlinks=True, onerror=fail):
        real = os.path.realpath(folder)
        if real in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if not name.startswith("."):
                found[os.path.splitext(name)[1].lower() or "without suffix"].append(Path(folder, name))
    return {suffix: sorted(paths) for suffix, paths in found.items()}


def _identity(root, files):
    return {"path": str(root), "files": len(files), "state": _state(files)}


def _state(files):
    """Changes whenever a file does: sha256 over names, sizes and times, the inode's too, which no tool sets back."""
    digest = hashlib.sha256()
    for file in files:
        try:
            stat = file.stat()
        except OSError as error:
            raise InputError(f"{str(file)!r} cannot be read: {error.strerror}") from None
        digest.update(os.fsencode(file) + b"\0")
        digest.update(f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}\n".encode())
    return digest.hexdigest()


def _contents(files):
    for file in files:
        try:
            yield f"the image {str(file)!r}", file.read_bytes()
        except OSError as error:
            raise InputError(f"the image {str(file)!r} cannot be read: {error.strerror}") from None


def _of_split(files, root, split):
    groups = collections.defaultdict(list)
    for file in files:
        groups[_split_of(file.relative_to(root))].append(file)
    if split == "train":
        return groups.get("train") or groups.get(None, [])
    return next((groups[name] for name in HELD_OUT if name in groups), [])


def _split_of(path):
    """By the first folder; of a shard, such as data/train-00000-of-00003.parquet, by its name and then its folders."""
    names = path.parts[:1] if path.parent.name else ()
    if path.suffix.lower() == ".parquet":
        names = re.split(r"[^a-z]", path.name.lower())[:1] + [*reversed(path.parent.parts)]
    return next((_SPLIT_NAMES[name.lower()] for name in names if name.lower() in _SPLIT_NAMES), None)


def _folder_labels(files, trained, root):
    """int64 (N,): the place of each image's class among the sorted classes of the training images, or None.

    An image's class is the first folder below train/ and the like. None if an image lies in none. Raises InputError for
    a class that no training image is of.
    """

    def classes(files):
        paths = [file.relative_to(root) for file in files]
        folders = [path.parts[1 if _split_of(path) else 0 : -1] for path in paths]
        return [below[0] if below else None for below in folders]

    names, known = classes(files), set(classes(trained))
    if None in names or None in known:
        return None
    if unknown := sorted(set(names) - known):
        raise InputError(f"the images of the folder {unknown[0]!r} are of a class that no training image is of")
    numbers = {name: number for number, name in enumerate(sorted(known))}
    return np.array([numbers[name] for name in names], np.int64)
