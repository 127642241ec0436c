"""Checkpoints of a training, written whole or not at all, and verified when a training goes on. Two are kept.

`step-<n>.pt` holds the tensors and the log so far; `step-<n>.json` beside it, written after it, its sha256.
"""

import json
import sys
from contextlib import suppress

import torch
from safetensors.torch import save_file

from ..errors import InputError
from ..files import atomic_path, read_json, sha256_file, write_text
from ..store import save_with_note

_PARTS = ("network", "optimizer", "ema")


def training_state(training):
    """The state of a `Training` after its last step."""
    state = {name: getattr(training, name).state_dict() for name in _PARTS}
    return {**state, "sums": training.log.total, "seconds": training.seconds, "log": training.log.rows}


def resume(training):
    """Take the last checkpoint's state, if there is one; the first process reads it and gives it to all."""
    world, folder = training.world, training.run.folder
    training.step, state = world.broadcast(load_checkpoint(folder / "checkpoints") if world.first else None)
    if state is not None:
        for name in _PARTS:
            getattr(training, name).load_state_dict(state[name])
        training.ema.to(training.config.device)
        training.seconds, training.log.total = state["seconds"], state["sums"]
        training.log.rows = state["log"]
    if world.first:
        # Rows come from the checkpoint, not from the file: a killed training may have left later ones, or half a row.
        write_text(folder / "log.jsonl", "".join(json.dumps(row) + "\n" for row in training.log.rows))
        _tidy(folder / "checkpoints", training.step)
        for leftover in folder.glob(".*-????????.*"):  # half-written files of killed writers
            leftover.unlink(missing_ok=True)
    training.model = world.replicate(training.network)
    if world.size > 1:
        # After its first backward pass DistributedDataParallel lays the gradients out anew. Were that a step, those of
        # a resumed training would be added in another order than those of an uninterrupted one.
        training.backward(training.batches(training.step))
        training.network.zero_grad(set_to_none=True)


def save_checkpoint(folder, step, state):
    """Write `state` as the checkpoint of `step`."""
    path, note = (folder / f"step-{step:09d}.{kind}" for kind in ("pt", "json"))
    save_with_note(path, lambda temporary: torch.save(state, temporary), lambda: {"step": step}, note)
    _tidy(folder, step)


def _tidy(folder, step):
    """Keep the last checkpoints up to `step`; damaged later ones, and what killed writers left behind, go too."""
    notes = [note for note in sorted(folder.glob("step-*.json")) if note.stem <= f"step-{step:09d}"]
    kept = {note.stem for note in notes[-2:]}
    for path in [*folder.glob("step-*"), *folder.glob(".step-*")]:
        if path.stem not in kept:
            path.unlink(missing_ok=True)


def load_checkpoint(folder):
    """(step, state) of the newest checkpoint that is undamaged, or (0, None) if none was ever written.

    A damaged one is named in one line on stderr and the one before it is used. Raises InputError if all are damaged.
    """
    notes = sorted(folder.glob("step-*.json"), reverse=True)
    for note in notes:
        path, step = note.with_suffix(".pt"), int(note.stem.removeprefix("step-"))
        with suppress(Exception):  # whatever torch makes of a file that it did not write
            if read_json(note) == {"step": step, "sha256": sha256_file(path)}:
                return step, torch.load(path, map_location="cpu", weights_only=True)
        print(f"checkpoint {path.name} is damaged or not ours; the one before it is tried", file=sys.stderr)
    if notes:
        raise InputError(f"every checkpoint in {folder} is damaged; move the run's folder away to train it again")
    return 0, None


def save_weights(path, network):
    """Write a network's state as safetensors, atomically."""
    with atomic_path(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, temporary)
