"""Samples on disk: drawn in shards, so that a killed job goes on at its next shard. Imports no torch.

The images of a job are one .npy file, named by the hash of what decides them. Until all are drawn they lie in shards of
about 1,000 in a folder of that name; then they are joined, and the shards removed.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..files import sha256_json, write_npy
from ..store import is_current, stored

__all__ = ["SampleStore"]

_SHARD = 1000  # images


@dataclass(frozen=True)
class SampleStore:
    """The place of `inputs["n"]` samples of `shape` (C, H, W); inputs, JSON-native, are all that decides the images."""

    folder: Path
    inputs: dict
    shape: tuple

    @property
    def path(self):
        """The .npy file of all samples."""
        return Path(self.folder) / f"{sha256_json(self.inputs)[:32]}.npy"

    @property
    def complete(self):
        """Whether all samples are there, undamaged."""
        return is_current(self.path, self.inputs, self.path.with_suffix(".json"))

    @property
    def images(self):
        """All samples: uint8 (n, C, H, W), read-only and mapped from disk."""
        return np.load(self.path, mmap_mode="r", allow_pickle=False)

    def missing(self):
        """The seeds of each shard that is still to be drawn: a list of ranges."""
        return [] if self.complete else [s for s in self._shards() if not is_current(self._shard(s), _inputs(s))]

    def add(self, seeds, images):
        """Store a shard: the images uint8 (len(seeds), C, H, W) of one of the ranges that `missing` gave."""
        stored(self._shard(seeds), _inputs(seeds), lambda path: write_npy(path, images))

    def join(self):
        """Join the shards, none of which is missing, to one file."""
        stored(self.path, self.inputs, self._write, note=self.path.with_suffix(".json"))
        shutil.rmtree(self.path.with_suffix(""), ignore_errors=True)

    def _write(self, path):
        shape = (self.inputs["n"], *self.shape)
        with open(path, "wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            for seeds in self._shards():
                file.write(np.load(self._shard(seeds), allow_pickle=False))

    def _shards(self):
        """Ranges of seeds, in whole batches: an image's last bits depend on the size of its batch."""
        n, batch = self.inputs["n"], self.inputs["batch_size"]
        size = batch * max(1, _SHARD // batch)
        return [range(start, min(n, start + size)) for start in range(0, n, size)]

    def _shard(self, seeds):
        return self.path.with_suffix("") / f"{seeds.start:06d}.npy"


def _inputs(seeds):
    return {"seeds": [seeds.start, seeds.stop]}
