"""Decoded images under `paths.cache_root()`, kept by `store`. Imports no torch."""

import contextlib
import hashlib
import re
import shutil

import numpy as np

from ..errors import InputError
from ..files import read_json, sha256_json
from ..paths import cache_root
from ..store import note_of, stored
from .decode import decoder

_HASHED_BYTES = 1_000_000_000  # of larger files, size and time of change are looked at


class Cached:
    """The place of a `Source`'s decoded images."""

    def __init__(self, source, resolution, split):
        self.source, self.resolution = source, resolution
        self.inputs = {"source": source.identity, "split": split, "resolution": resolution}
        name = re.sub(r"[^\w.-]", "_", source.name, flags=re.ASCII)[-40:]
        self.path = cache_root() / "images" / f"{name}-{sha256_json(self.inputs)[:24]}.npy"
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
    """Write `count` images as a .npy file, one after the other, and return what its note says of them.

    With a mapping instead, a full disk would end the process, and memory would grow.
    """
    from tqdm import tqdm

    shape = (count, 3, resolution, resolution)
    _check_room(path.parent, name, shape)
    digest, written = hashlib.sha256(f"uint8 {'x'.join(map(str, shape))}\n".encode()), 0
    bar = {"desc": f"decoding {name}", "unit": "image", "delay": 5, "mininterval": 2, "leave": False}
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for image in tqdm(images, total=count, disable=not progress, **bar):
            file.write(image)
            digest.update(image)
            written += 1
    if written != count:
        raise InputError(f"data set {name} gave {written} images where {count} were announced; get it again")
    stat = path.stat()
    return {"name": name, "fingerprint": digest.hexdigest(), "file": [stat.st_size, stat.st_mtime_ns]}


def _check_room(folder, name, shape):
    if shape[0] < 2:
        raise InputError(f"data set {name} holds {shape[0]} images; it must hold at least 2")
    needed, free = int(np.prod(shape, dtype=np.int64)), shutil.disk_usage(folder).free
    if needed > free:
        sizes = f"{needed / 1e9:.1f} GB and {str(folder)!r} has {free / 1e9:.1f} GB left"
        raise InputError(f"the images of {name} need {sizes}; set DEBIASLIB_CACHE to a folder with more room")


@contextlib.contextmanager
def _writing(folder):
    """Turn what the system says of an unusable cache folder into one line."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        reason = f"({error.strerror or error}); set DEBIASLIB_CACHE to a folder that can"
        raise InputError(f"the cache folder {str(folder)!r} cannot be written {reason}") from None
