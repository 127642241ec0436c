"""Samples on disk, drawn in shards, so that a killed job goes on at its next shard. Imports no torch.

The images of a job are one .npy file, named by the hash of what decides them. Until all are drawn, they lie in shards
of about 1,000 in a folder of that name.
"""

import shutil

import numpy as np

from ..files import sha256_json, write_npy
from ..store import stored

_SHARD = 1000  # images


def stored_images(folder, inputs, shape, draw):
    """`inputs["n"]` images of `shape` (C, H, W), uint8 (n, C, H, W), mapped from disk; those not yet there are drawn.

    inputs: JSON-native; all that decides the images. draw: called with a range of numbers below n, gives the images of
    these.
    """
    path = folder / f"{sha256_json(inputs)[:32]}.npy"
    shards, n, batch = path.with_suffix(""), inputs["n"], inputs["batch_size"]
    size = batch * max(1, _SHARD // batch)  # whole batches: an image's last bits depend on the size of its batch

    def make(temporary):
        with open(temporary, "wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": (n, *shape)}
            np.lib.format.write_array_header_1_0(file, header)
            for start in range(0, n, size):
                part = range(start, min(n, start + size))
                seeds = {"seeds": [part.start, part.stop]}
                shard = stored(shards / f"{start:06d}.npy", seeds, lambda to, part=part: write_npy(to, draw(part)))
                file.write(np.load(shard, allow_pickle=False))

    stored(path, inputs, make, note=path.with_suffix(".json"))
    shutil.rmtree(shards, ignore_errors=True)
    return np.load(path, mmap_mode="r", allow_pickle=False)
