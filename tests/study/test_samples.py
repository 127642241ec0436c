"""Samples on disk: a job killed at any moment goes on at its next shard and ends with the same bytes."""

import json
import multiprocessing
import os
import random
import signal

import numpy as np
import pytest

from debiaslib.files import sha256_file
from debiaslib.study import samples

SHAPE, INPUTS = (3, 4, 5), {"sampler": "ddim", "n": 7, "batch_size": 2}


def drawn(numbers):
    """The images of these numbers."""
    draws = (np.random.default_rng(number) for number in numbers)
    return np.stack([draw.integers(0, 256, SHAPE, dtype=np.uint8) for draw in draws])


class Folder:
    """Where samples are stored; `asked` are the ranges that were drawn."""

    def __init__(self, path):
        self.path, self.asked = path, []

    def draw(self, numbers):
        self.asked.append(numbers)
        return drawn(numbers)

    def images(self, **changed):
        self.asked = []
        return samples.stored_images(self.path, {**INPUTS, **changed}, SHAPE, self.draw)

    def files(self):
        return sorted(path for path in self.path.rglob("*") if path.is_file() and path.suffix != ".lock")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """One whose shards are of two images."""
    monkeypatch.setattr(samples, "_SHARD", 3)
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # no machine loses its power here
    return Folder(tmp_path / "samples")


def test_what_is_stored(folder):
    images = folder.images()
    assert isinstance(images, np.memmap) and not images.flags.writeable and images.dtype == np.uint8
    note, path = folder.files()  # an ordinary .npy file
    assert np.array_equal(images, drawn(range(7))) and np.array_equal(np.load(path), images)
    said = json.loads(note.read_text())
    assert note == path.with_suffix(".json") and said["inputs"] == INPUTS and said["sha256"] == sha256_file(path)
    assert np.array_equal(folder.images(), images) and folder.asked == []
    assert len(folder.images(n=6)) == 6 and len(folder.files()) == 4  # other inputs have another file


def test_shards_are_whole_batches(tmp_path):
    """An image's last bits depend on the size of its batch."""
    for batch, sizes in {64: [960, 960, 80], 300: [900, 900, 200], 1500: [1500, 500]}.items():
        folder = Folder(tmp_path)
        folder.images(n=2000, batch_size=batch)
        assert [len(one) for one in folder.asked] == sizes and sum(map(list, folder.asked), []) == list(range(2000))


def test_a_stopped_job_goes_on_at_its_next_shard_and_draws_a_damaged_one_again(folder, monkeypatch):
    def stop(numbers):
        if numbers.start == 4:
            raise KeyboardInterrupt
        return drawn(numbers)

    with pytest.raises(KeyboardInterrupt):
        samples.stored_images(folder.path, INPUTS, SHAPE, stop)
    shard = next(path for path in folder.files() if path.name == "000000.npy")
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    assert np.array_equal(folder.images(), drawn(range(7)))
    assert folder.asked == [range(2), range(4, 6), range(6, 7)]
    path = folder.files()[1]
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert np.array_equal(folder.images(), drawn(range(7))) and len(folder.asked) == 4


def draw_until(folder, renames):
    """Draw until so many files have got their names."""
    replace, left = os.replace, [renames]

    def counted(*paths):
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        replace(*paths)

    os.replace = counted
    folder.images()


def test_killed_again_and_again_it_ends_with_the_same_bytes(folder, tmp_path):
    whole = Folder(tmp_path / "whole")
    whole.images()
    chance, fork, codes = random.Random(0), multiprocessing.get_context("fork"), []
    while 0 not in codes:
        process = fork.Process(target=draw_until, args=(folder, chance.randint(1, 3)))
        process.start()
        process.join()
        codes.append(process.exitcode)
    assert codes.count(-signal.SIGKILL) >= 2 and len(folder.files()) == 2
    assert folder.files()[1].read_bytes() == whole.files()[1].read_bytes()
