"""Files that a training writes: checkpoints, whole or not at all, verified by sha256 when read; and weights.

`step-<n>.pt` holds the tensors and the log so far; `step-<n>.json` beside it, written after it, its sha256. A
checkpoint counts once both are there. The last two are kept.
"""

import pickle
import sys

import torch
from safetensors.torch import save_file

from ..errors import InputError
from ..files import atomic_path, fill_json, read_json, sha256_file

KEPT = 2


def save_checkpoint(folder, step, state):
    """Write `state` (what torch.save can write of tensors, numbers, lists and dicts) as the checkpoint of `step`."""
    path = folder / f"step-{step:09d}.pt"
    # Both are written before either has its name, so that a full disk leaves no tensors without a note.
    note = path.with_suffix(".json")
    with atomic_path(note) as said, atomic_path(path) as temporary:
        torch.save(state, temporary)
        fill_json(said, note, {"step": step, "sha256": sha256_file(temporary)})
    tidy(folder, step)


def tidy(folder, step):
    """Keep the last checkpoints up to `step`; damaged later ones, and what killed writers left behind, go too."""
    notes = sorted(folder.glob("step-*.json"))
    kept = {note.stem for note in [n for n in notes if n.stem <= f"step-{step:09d}"][-KEPT:]}
    for path in [*folder.glob("step-*"), *folder.glob(".step-*")]:
        if path.stem not in kept:
            path.unlink(missing_ok=True)


def load_checkpoint(folder):
    """(step, state) of the newest checkpoint that is undamaged, or (0, None) if none was ever written.

    A damaged one is named in one line on stderr and the one before it is used. Raises InputError if all are damaged.
    """
    notes = sorted(folder.glob("step-*.json"), reverse=True) if folder.is_dir() else []
    for note in notes:
        try:
            return _verified(note)
        except InputError as error:
            print(f"{error}; the checkpoint before it is tried", file=sys.stderr)
    if notes:
        raise InputError(f"every checkpoint in {folder} is damaged; move the run's folder away to train it again")
    return 0, None


def _verified(note):
    path = note.with_suffix(".pt")
    try:
        said = read_json(note)
    except InputError:
        raise InputError(f"checkpoint {path.name} is damaged: its note is not what was written") from None
    recorded = {"step": _step(note), "sha256": sha256_file(path) if path.is_file() else None}
    if said != recorded:
        raise InputError(f"checkpoint {path.name} is missing or damaged: its step and sha256 are not the recorded ones")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(f"checkpoint {path.name} is not one of ours: it holds more than tensors and numbers") from None
    except Exception:  # whatever torch makes of a file that was not written by it
        state = None
    if not isinstance(state, dict):
        raise InputError(f"checkpoint {path.name} is not one of ours: it holds no state of a training")
    return said["step"], state


def _step(note):
    digits = note.stem.removeprefix("step-")
    return int(digits) if digits.isdecimal() else None


def save_weights(path, network):
    """Write a network's state as safetensors, atomically."""
    with atomic_path(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, temporary)


def remove_half_written(folder):
    """Remove the half-written files that killed writers left in a run's folder. The caller must hold its lock."""
    for leftover in folder.glob(f".*-{'?' * 8}.*"):
        leftover.unlink(missing_ok=True)
