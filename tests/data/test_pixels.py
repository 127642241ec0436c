"""The same rows however they are read; and data that are larger than memory are never held in it."""

import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from debiaslib.data.images import Pixels

IMAGES = np.random.default_rng(0).integers(0, 256, (11, 3, 4, 4), dtype=np.uint8)
ROWS = st.lists(st.integers(0, len(IMAGES) - 1), min_size=1, max_size=8)


@given(st.lists(ROWS, min_size=1, max_size=4), st.sampled_from(["known", "wrong", "none"]))
@settings(max_examples=40)
def test_the_rows_do_not_depend_on_how_they_are_read(batches, upcoming):
    resident, read = Pixels(IMAGES), Pixels(IMAGES, limit=0)
    assert resident.resident is not None and read.resident is None and len(read) == len(IMAGES)
    batches = [torch.tensor(rows) for rows in batches]
    for rows, following in zip(batches, [*batches[1:], batches[0]], strict=True):
        ahead = {"known": lambda f=following: f, "wrong": lambda: torch.tensor([0]), "none": None}[upcoming]
        for pixels in (resident, read):
            assert np.array_equal(pixels.take(rows, ahead).numpy(), IMAGES[rows.numpy()])


def test_the_limit_decides_where_they_lie():
    assert Pixels(IMAGES, limit=IMAGES.nbytes).resident is not None
    assert Pixels(IMAGES, limit=IMAGES.nbytes - 1).resident is None


def test_the_next_rows_are_read_by_another_thread_before_they_are_asked_for(monkeypatch):
    read, done = [], threading.Event()
    one = Pixels._read

    def watched(self, index):
        batch = one(self, index)
        read.append((index.tolist(), threading.current_thread()))
        if len(read) == 2:
            done.set()
        return batch

    monkeypatch.setattr(Pixels, "_read", watched)
    pixels = Pixels(IMAGES, limit=0)
    pixels.take(torch.tensor([3, 1]), lambda: torch.tensor([2, 2]))
    assert done.wait(10)
    assert [rows for rows, _ in read] == [[3, 1], [2, 2]]
    assert read[0][1] is threading.main_thread() and read[1][1] is not threading.main_thread()
    pixels.take(torch.tensor([2, 2]))
    assert len(read) == 2


def test_what_lies_on_the_device_is_not_asked_for_ahead():
    Pixels(IMAGES).take(torch.tensor([0]), lambda: pytest.fail("asked"))


# 96 MiB of images at 256x256 are decoded to the cache, loaded, and read for 40 batches, as 13.8 GB of them would be.
MEMORY = """
import re, sys
from pathlib import Path
import numpy as np, torch
from debiaslib.data import images as data
from debiaslib.data.folders import Source
from debiaslib.data.images import Pixels

COUNT, SIDE = 512, 256

def own():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

def images():
    random = np.random.default_rng(0)
    for _ in range(COUNT):
        seen.append(own())
        yield random.integers(0, 256, (3, SIDE, SIDE), dtype=np.uint8)

torch.set_num_threads(1)
source = Source("large", {"large": 1}, lambda resolution: (COUNT, images()), drawn=True)
data._find_source = lambda *arguments: source
before, seen = own(), []
loaded = data.load_images("large", SIDE, progress=False)
seen.append(own())
pixels = Pixels(loaded.images, limit=loaded.images.nbytes // 2)
generator = torch.Generator().manual_seed(0)
batches = [torch.randint(COUNT, (8,), generator=generator) for _ in range(41)]
for rows, following in zip(batches, batches[1:]):
    pixels.take(rows, lambda: following)
    seen.append(own())
print(loaded.images.nbytes, max(seen) - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="a process's own memory is read from Linux")
def test_memory_does_not_grow_with_the_data(tmp_path, monkeypatch):
    monkeypatch.setenv("DEBIASLIB_CACHE", str(tmp_path))
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, timeout=300)
    assert re.fullmatch(r"\d+ -?\d+\n", done.stdout), done.stderr
    size, grown = map(int, done.stdout.split())
    assert size == 512 * 3 * 256**2
    assert grown < size / 5
