"""What trainings of the reliability tests start from, and what they leave: equal to the bit, or what differs."""

import hashlib
import json

import numpy as np
import torch
from PIL import Image

from debiaslib.training.checkpoints import load_checkpoint

STEPS, BATCH = 21, 4
NETWORK = {
    "sample_size": 8,
    "block_out_channels": [8, 8],
    "layers_per_block": 1,
    "down_block_types": ["DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D"],
    "norm_num_groups": 4,
    "add_attention": False,
    "dropout": 0.1,
}
# All that is random in one training; snapshots after 5, 12 and 21 steps.
SETTINGS = {"resolution": 8, "network": NETWORK, "images": STEPS * BATCH, "batch_size": BATCH, "lr": 2e-3,
            "lr_decay": "cosine", "ema_decay": 0.8, "weight_decay": 0.01, "horizontal_flip": True,
            "snapshots": [18, 48]}  # fmt: skip
_TIMES = ("seconds", "images_per_second")


def faces(folder, count=12):
    """A folder of 8x8 images; its path as text."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for i in range(count):
        Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{i:02d}.png")
    return str(folder)


def _without_times(facts):
    return {key: value for key, value in facts.items() if key not in _TIMES}


def outcome(run):
    """All that a complete run leaves, without times: network, EMA and optimiser of its last checkpoint, every file of
    weights by its sha256, the rows of the log, configuration and record.
    """
    step, state = load_checkpoint(run.folder / "checkpoints")
    weights = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in run.folder.glob("*.safetensors")}
    rows = [_without_times(json.loads(line)) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    record, log = _without_times(run.record), run.folder / "log.jsonl"
    assert record.pop("log") == {"file": log.name, "sha256": hashlib.sha256(log.read_bytes()).hexdigest()}
    assert state["log"] == run.log()  # times and all: they are the run's own
    return {"step": step, **_without_times(state), "weights": weights, "log": rows, "configuration": run.config,
            "record": record}  # fmt: skip


def _equal(one, other):
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    return one == other


def differences(got, wanted):
    """The names of the facts in which two outcomes differ."""
    return [key for key in {**wanted, **got} if key not in got or not _equal(got[key], wanted.get(key))]


def left_behind(folder):
    """Names of the hidden files that are no locks: what a killed writer left."""
    return [path.name for path in folder.rglob(".*") if ".lock" not in path.name]
