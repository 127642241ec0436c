"""Samples on disk: a job killed at any moment goes on at its next shard and ends with the same bytes."""

import json
import multiprocessing
import os
import random
import signal

import numpy as np
import pytest

from debiaslib.files import sha256_file
from debiaslib.study import sample_store
from debiaslib.study.sample_store import SampleStore

SHAPE, INPUTS = (3, 4, 5), {"sampler": "ddim", "n": 7, "batch_size": 2}


def image(seed):
    return np.random.default_rng(seed).integers(0, 256, SHAPE, dtype=np.uint8)


EXPECTED = np.stack([image(seed) for seed in range(7)])


@pytest.fixture
def store(tmp_path, monkeypatch):
    """One whose shards are of two images."""
    monkeypatch.setattr(sample_store, "_SHARD", 3)
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # no machine loses its power here
    return SampleStore(tmp_path / "samples", INPUTS, SHAPE)


def draw(store, most=None):
    """Draw what is missing, at most so many shards; the seeds of those drawn."""
    drawn = store.missing()[:most]
    for seeds in drawn:
        store.add(seeds, np.stack([image(seed) for seed in seeds]))
    if most is None:
        store.join()
    return drawn


def draw_until(store, renames):
    """Draw until so many files have got their names."""
    replace, left = os.replace, [renames]

    def counted(*paths):
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        replace(*paths)

    os.replace = counted
    draw(store)


def names(store):
    return sorted(path.name for path in store.folder.iterdir() if path.suffix != ".lock")


def test_what_is_stored(store):
    assert not store.complete
    draw(store)
    assert (
        store.complete
        and store.missing() == []
        and names(store) == [store.path.with_suffix(".json").name] + [store.path.name]
    )
    images = store.images
    assert isinstance(images, np.memmap) and not images.flags.writeable and images.dtype == np.uint8
    assert np.array_equal(images, EXPECTED) and np.array_equal(np.load(store.path), EXPECTED)  # an ordinary .npy file
    said = json.loads(store.path.with_suffix(".json").read_text())
    assert said["inputs"] == INPUTS and said["sha256"] == sha256_file(store.path)
    before = store.path.stat().st_mtime_ns
    draw(store)
    assert store.path.stat().st_mtime_ns == before


def test_shards_are_whole_batches(tmp_path):
    """An image's last bits depend on the size of its batch."""
    for batch, sizes in {64: [960, 960, 80], 300: [900, 900, 200], 1500: [1500, 500]}.items():
        store = SampleStore(tmp_path, {"n": 2000, "batch_size": batch}, SHAPE)
        seeds = store.missing()
        assert [len(one) for one in seeds] == sizes and [s for one in seeds for s in one] == list(range(2000))


def test_a_stopped_job_goes_on_at_its_next_shard(store):
    assert draw(store, 1) == [range(2)] and not store.complete
    assert draw(store, 1) == [range(2, 4)]
    shard = store._shard(range(2))
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")  # it is damaged meanwhile
    assert draw(store) == [range(2), range(4, 6), range(6, 7)]
    assert np.array_equal(store.images, EXPECTED)


def test_other_inputs_have_another_file_and_damaged_samples_are_drawn_again(store):
    draw(store)
    for changed in ({**INPUTS, "sampler": "ddpm"}, {**INPUTS, "n": 6}):
        other = SampleStore(store.folder, changed, SHAPE)
        assert other.path != store.path and not other.complete
    content = bytearray(store.path.read_bytes())
    content[-1] ^= 1
    store.path.write_bytes(content)
    assert len(draw(store)) == 4 and np.array_equal(store.images, EXPECTED)


def test_killed_again_and_again_it_ends_with_the_same_bytes(store, tmp_path):
    whole = SampleStore(tmp_path / "whole", INPUTS, SHAPE)
    draw(whole)
    chance, fork, kills = random.Random(0), multiprocessing.get_context("fork"), 0
    while not store.complete:
        process = fork.Process(target=draw_until, args=(store, chance.randint(1, 3)))
        process.start()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
    draw(store)
    assert kills >= 2 and store.path.read_bytes() == whole.path.read_bytes()
