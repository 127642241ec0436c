"""The same rows however they are read; and data that are larger than memory are never held in it."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from debiaslib.training.batches import Pixels

IMAGES = np.random.default_rng(0).integers(0, 256, (11, 3, 4, 4), dtype=np.uint8)
ROWS = st.lists(st.integers(0, len(IMAGES) - 1), min_size=1, max_size=8)


@given(ROWS)
def test_the_rows_do_not_depend_on_where_they_lie(rows):
    resident, read = Pixels(IMAGES, limit=IMAGES.nbytes), Pixels(IMAGES, limit=IMAGES.nbytes - 1)
    assert resident.resident is not None and read.resident is None and len(read) == len(IMAGES)
    for pixels in (resident, read):
        assert np.array_equal(pixels.take(torch.tensor(rows)).numpy(), IMAGES[rows])


# 96 MiB of images at 256x256 are decoded to the cache, loaded, and read for 40 batches, as 13.8 GB of them would be.
MEMORY = """
import re, sys
from pathlib import Path
import numpy as np, torch
from debiaslib.data import images as data
from debiaslib.data.folders import Source
from debiaslib.training.batches import Pixels

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
for rows in batches:
    pixels.take(rows)
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
