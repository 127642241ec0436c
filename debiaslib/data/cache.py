"""Decoded images and labels under `paths.cache_root()`: made once, whole or not at all. Imports no torch."""

import contextlib
import hashlib
import os
import re
import shutil
import sys
import tempfile

import numpy as np

from ..errors import InputError
from ..files import read_json, sha256_json, write_npy
from ..paths import cache_root
from ..store import note_of, stored
from .decode import decoder

_HASHED_BYTES = 1_000_000_000  # of larger files, size and time of change are looked at
_DARK = 32  # 12-bit data in 16-bit files reach 16 of 255


def _folder():
    return cache_root() / "images"


class Cached:
    """The place of a `Source`'s decoded images and labels."""

    def __init__(self, source, resolution, split):
        self.source, self.resolution = source, resolution
        self.inputs = {"source": source.identity, "split": split, "resolution": resolution}
        name = re.sub(r"[^\w.-]", "_", source.name, flags=re.ASCII)[-40:]
        self.path = _folder() / f"{name}-{sha256_json(self.inputs)[:24]}.npy"
        self.inputs["decoder"] = None if source.drawn else decoder()

    def images(self, progress):
        """(uint8 (N, 3, R, R) mapped from disk, fingerprint); None where the data set has no such split."""
        facts = {}

        def make(temporary):
            opened = self.source.open(self.resolution)
            if opened is None:
                raise _NoSuchSplit
            facts.update(_decode_to(temporary, self.source.name, *opened, self.resolution, progress))

        with contextlib.suppress(_NoSuchSplit), _writing(self.path.parent):
            if not self._untouched():
                stored(self.path, self.inputs, make, facts=lambda: facts)
            return np.load(self.path, mmap_mode="r", allow_pickle=False), read_json(note_of(self.path))["fingerprint"]

    def labels(self, check):
        """`check` of the labels, int64 (N,), of length 0 where there are none. What it refuses is not kept."""

        def make(temporary):
            labels = self.source.labels()
            labels = np.zeros(0, np.int64) if labels is None else labels
            check(labels)
            write_npy(temporary, labels)

        with _writing(self.path.parent):
            return check(np.load(stored(self.path.with_suffix(".labels.npy"), self.inputs, make), allow_pickle=False))

    def _untouched(self):
        """Whether a file too large to be hashed at each start has the recorded inputs, size and time of change."""
        with contextlib.suppress(InputError, OSError, KeyError, TypeError):
            note, stat = read_json(note_of(self.path)), self.path.stat()
            same = [note["inputs"], note["file"]] == [self.inputs, [stat.st_size, stat.st_mtime_ns]]
            return same and stat.st_size > _HASHED_BYTES
        return False


class _NoSuchSplit(Exception):
    """A data set of the hub shows only when it is loaded which splits it has."""


def _decode_to(path, name, count, images, resolution, progress):
    """Write `count` images as a .npy file and return what its note says of them.

    They are written one after the other, not through a mapping: a full disk is then an error, not the end of the
    process, and memory stays flat.
    """
    from tqdm import tqdm

    shape = (count, 3, resolution, resolution)
    _check_room(path.parent, name, shape)
    digest, written, brightest = hashlib.sha256(f"uint8 {'x'.join(map(str, shape))}\n".encode()), 0, 0
    bar = {"desc": f"decoding {name}", "unit": "image", "delay": 5, "mininterval": 2, "leave": False}
    with open(path, "wb") as file, tqdm(images, total=count, disable=not progress, **bar) as shown_images:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for image in shown_images:
            file.write(image)
            digest.update(image)
            written, brightest = written + 1, max(brightest, image.max())
    if written != count:
        raise InputError(f"data set {name} gave {written} images where {count} were announced; get it again")
    if brightest < _DARK:
        dark = f"all images of {name} are dark: the brightest value is {brightest} of 255"
        print(f"{dark}; 12-bit data in 16-bit files must be multiplied by 16 first", file=sys.stderr, flush=True)
    stat = path.stat()
    return {"name": name, "fingerprint": digest.hexdigest(), "file": [stat.st_size, stat.st_mtime_ns]}


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
def _writing(folder):
    """Turn what the system says of an unusable cache folder into one line."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        yield
    except OSError as error:
        raise InputError(
            f"the cache folder {str(folder)!r} cannot be written ({error.strerror or error}); "
            "set DEBIASLIB_CACHE to a folder that can"
        ) from None


def decoded_revisions(hub_id, resolution, split):
    """Commits of a hub data set that the cache holds decoded, the newest last."""
    found = []
    for file in _folder().glob("*.npy.json"):
        with contextlib.suppress(InputError, OSError, KeyError, TypeError, AttributeError):
            inputs = read_json(file)["inputs"]
            if [inputs["source"].get("hub"), inputs["split"], inputs["resolution"]] == [hub_id, split, resolution]:
                found.append((os.stat(file).st_mtime_ns, inputs["source"]["revision"]))
    return [revision for _, revision in sorted(found)]
