"""Samples on disk, written as they come: a job that was killed goes on at its next batch. Imports no torch.

The images of one job are one .npy file, named by the hash of what decides them. While it grows it is a partial file
with a note beside it, renewed after each batch that has reached the disk: how many images there are, and the sha256 of
the file so far. What a partial file holds beyond its note is cut off and drawn again. A record with the sha256 of the
whole is written last; without it the file does not count.
"""

import hashlib
import io
import math
import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..files import exclusive, naming, read_json, sha256_file, sha256_json, write_json

__all__ = ["sample_path", "stored_samples"]


def sample_path(folder, inputs):
    """The .npy file of the samples that `inputs` decide; its record is beside it, with the suffix .json."""
    return Path(folder) / f"{sha256_json(inputs)[:32]}.npy"


def stored_samples(folder, inputs, seeds, shape, draw):
    """The samples of `inputs`, uint8 (N, C, H, W), read-only and mapped from disk; what is not there yet is drawn.

    inputs: JSON-native, all that decides the images: model, sampler, steps, seeds or their number, batch size, device.
    seeds: whole numbers, N of them. shape: (C, H, W).
    draw: takes the seeds that are still to do and gives an iterable of uint8 batches (n, C, H, W) in their order,
        `lambda left: sample_batches(model, schedule, left, ...)`. It is not called where nothing is to do.

    The sha256 is verified at each call; a damaged file is drawn again, with a line on stderr. One process draws, others
    wait for it. Raises InputError for no seeds, batches of another shape, type or number, samples of other seeds or
    shape stored under the same inputs, and a disk without room.
    """
    seeds, shape = [int(seed) for seed in seeds], tuple(int(size) for size in shape)
    if not seeds:
        raise InputError("seeds is empty; there must be at least one")
    path, what = sample_path(folder, inputs), {"shape": [len(seeds), *shape], "seeds": sha256_json(seeds)}
    images, _ = _finished(path, what)
    if images is None:
        with exclusive(path.with_suffix(".lock"), f"the samples {path.name}"):
            images, problem = _finished(path, what)  # another process may have drawn them meanwhile
            if problem:
                print(f"samples {path.name} are damaged: {problem}; drawing them again", file=sys.stderr, flush=True)
                path.unlink(missing_ok=True)
                path.with_suffix(".json").unlink(missing_ok=True)
            if images is None:
                _write(path, inputs, what, seeds, draw)
                images, problem = _finished(path, what)
    if images is None:
        raise InputError(f"samples {str(path)!r} are damaged right after they were written ({problem}); check the disk")
    return images


def _finished(path, what):
    """(images or None, what is damaged or None) of what is stored under a name."""
    try:
        record = read_json(path.with_suffix(".json"))
        if record is None:
            return None, None
        if any(record[key] != value for key, value in what.items()):
            raise _Other(f"samples {path.name} are stored for other seeds or another shape; tell them apart in inputs")
        if sha256_file(path) != record["sha256"]:
            return None, "the sha256 is not the recorded one"
        return np.load(path, mmap_mode="r", allow_pickle=False), None
    except FileNotFoundError:
        return None, "the images are missing"
    except _Other:
        raise
    except InputError:
        return None, "the record is not what was written"
    except (ValueError, TypeError, KeyError) as error:
        return None, " ".join(str(error).split())


class _Other(InputError):
    """Not damage: what is stored is sound and answers another question."""


def _write(path, inputs, what, seeds, draw):
    """Draw what is left, batch by batch, and finish the file. The lock is held."""
    partial, note = path.with_suffix(".partial"), path.with_suffix(".progress.json")
    for leftover in path.parent.glob(f".{path.stem}*"):  # of an atomic write that was killed
        leftover.unlink(missing_ok=True)
    if not partial.exists() and path.exists():  # killed between the last name and the record
        os.replace(path, partial)
    state, digest = _resumed(partial, note, what)
    _check_room(path, what["shape"], state["done"])
    with naming(partial), open(partial, "r+b") as file:
        file.seek(0, os.SEEK_END)
        started, before = time.monotonic(), state["seconds"]
        batches = draw(seeds[state["done"] :]) if state["done"] < len(seeds) else ()
        for batch in batches:
            batch = _checked(batch, what["shape"], state["done"])
            file.write(batch)
            digest.update(batch)
            file.flush()
            os.fsync(file.fileno())
            seconds = before + time.monotonic() - started
            state |= {"done": state["done"] + len(batch), "sha256": digest.hexdigest(), "seconds": seconds}
            write_json(note, state)
    if state["done"] != len(seeds):
        raise InputError(f"draw gave {state['done']} images for {len(seeds)} seeds")
    os.replace(partial, path)
    record = {"inputs": inputs, **what, "n": len(seeds), "sha256": state["sha256"], "seconds": state["seconds"]}
    write_json(path.with_suffix(".json"), record)
    note.unlink(missing_ok=True)


def _resumed(partial, note, what):
    """(state, digest) of a partial file, cut to what its note vouches for; of a new one if it does not hold that."""
    try:
        state = _read_note(note)
        if state is None:
            return _new(partial, what)
        if any(state[key] != value for key, value in what.items()):
            raise InputError("it is of other seeds or another shape")
        digest, left = hashlib.sha256(), len(_header(what["shape"])) + state["done"] * math.prod(what["shape"][1:])
        with open(partial, "r+b") as file:
            while left and (chunk := file.read(min(left, 1 << 22))):
                digest.update(chunk)
                left -= len(chunk)
            if digest.hexdigest() != state["sha256"]:
                raise InputError("it does not hold what its note says")
            file.truncate(file.tell())
        return state, digest
    except FileNotFoundError:
        problem = "it is missing"
    except (InputError, KeyError, TypeError, ValueError) as error:
        problem = " ".join(str(error).split())
    print(f"{partial.name} cannot be gone on with: {problem}; drawing from the start", file=sys.stderr, flush=True)
    note.unlink(missing_ok=True)
    return _new(partial, what)


def _read_note(note):
    try:
        return read_json(note)
    except InputError:
        raise InputError("its note is not what was written") from None


def _new(partial, what):
    header = _header(what["shape"])
    with naming(partial):
        partial.write_bytes(header)
    digest = hashlib.sha256(header)
    return {**what, "done": 0, "sha256": digest.hexdigest(), "seconds": 0.0}, digest


def _header(shape):
    """The first bytes of a .npy file of that shape."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": tuple(shape)})
    return file.getvalue()


def _checked(batch, shape, done):
    batch = np.ascontiguousarray(batch)
    left = shape[0] - done
    if batch.dtype != np.uint8 or list(batch.shape[1:]) != shape[1:] or not 1 <= len(batch) <= left:
        wanted = f"uint8 (n, {str(shape[1:])[1:-1]}), n <= {left}"
        raise InputError(f"draw gave a batch of {batch.dtype} {batch.shape}; it must be {wanted}")
    return batch


def _check_room(path, shape, done):
    needed, free = (shape[0] - done) * math.prod(shape[1:]), shutil.disk_usage(path.parent).free
    if needed > free:
        raise InputError(
            f"the samples {path.name} need {needed / 1e9:.1f} GB and {str(path.parent)!r} has {free / 1e9:.1f} GB left"
        )
