"""A tiny training for the tests of this room, a way to kill it, and what two equal runs must have in common."""

import hashlib

import numpy as np
import pytest
import torch
from PIL import Image

from debiaslib.errors import InputError
from debiaslib.training import loop
from debiaslib.training.checkpoints import load_checkpoint
from debiaslib.training.config import TrainConfig
from debiaslib.training.loop import train

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
STILL = {**NETWORK, "dropout": 0.0}
TRANSFORMER = {
    "_class_name": "DiTTransformer2DModel",
    "sample_size": 8,
    "in_channels": 3,
    "out_channels": 3,
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "num_layers": 2,
    "patch_size": 2,
}
STEPS, BATCH = 21, 4


def faces(folder, seed=0, count=12):
    """A folder of 8x8 images."""
    folder.mkdir()
    random = np.random.default_rng(seed)
    for i in range(count):
        Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{i:02d}.png")
    return str(folder)


def settings(dataset):
    """Of a training of 21 steps with all that is random in it; snapshots after 5, 12 and 21."""
    return {"dataset": dataset, "resolution": 8, "network": NETWORK, "images": STEPS * BATCH, "batch_size": BATCH,
            "lr": 2e-3, "lr_decay": "cosine", "ema_decay": 0.8, "weight_decay": 0.01, "horizontal_flip": True,
            "snapshots": [18, 48]}  # fmt: skip


def config(**changes):
    """The `TrainConfig` of four steps on minifaces."""
    plain = {"dataset": "minifaces", "resolution": 8, "network": STILL, "images": 16, "batch_size": 4, "lr": 1e-2}
    return TrainConfig(**{**plain, **changes})


def quietly(settings, results, checkpoint_seconds=1e9, **changes):
    """Train in results/test without a bar, by default without checkpoints before the end."""
    made = TrainConfig(**{**settings, **changes})
    return train(made, results, "test", progress=False, checkpoint_seconds=checkpoint_seconds)


class Interrupted(Exception):
    """Stands for the death of the process."""


def die():
    """End as a killed process does, as far as files are concerned."""
    raise Interrupted


def until(monkeypatch, stop, act=die):
    """Let `act` happen after step `stop` was taken and before anything of it is written."""
    one_step = loop.Training.one_step

    def step_then_act(self):
        one_step(self)
        if self.step == stop:
            act()

    monkeypatch.setattr(loop.Training, "one_step", step_then_act)


def refused(call, *arguments, **settings):
    """The line, one alone, by which a call refuses what it was given."""
    with pytest.raises(InputError) as caught:
        call(*arguments, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def equal(one, other):
    """Whether two nested states are equal to the bit."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def facts(run):
    """All that a complete run leaves, without times."""
    step, state = load_checkpoint(run.folder / "checkpoints")
    state.pop("seconds")
    assert state.pop("log") == run.log()
    log = [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in run.log()]
    weights = {path.name: path.read_bytes() for path in run.folder.glob("*.safetensors")}
    keys = ("processes", "backend", "snapshots", "raw", "config")
    return {"step": step, "state": state, "log": log, "weights": weights, **{key: run.record[key] for key in keys}}


def assert_same(run, other):
    """Two complete runs are equal to the bit in all but times."""
    got, wanted = facts(run), facts(other)
    for key in wanted:
        assert equal(got[key], wanted[key]), key


def tree(folder):
    """{path: sha256} of every file, without locks."""
    files = (path for path in folder.rglob("*") if path.is_file() and ".lock" not in path.name)
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def ask(network, side=8):
    """A network's answers to fixed images at four timesteps."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        return network(torch.randn(4, 3, side, side, generator=generator), torch.tensor([0, 3, 500, 999])).sample
