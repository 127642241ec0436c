"""What a timed loop is given: network, images, batch, device."""

import os
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from debiaslib.data.minifaces import render
from debiaslib.study.presets import get_preset

# So small that a rehearsal of a benchmark takes seconds.
TINY = {
    "block_out_channels": [8, 8],
    "layers_per_block": 1,
    "down_block_types": ["DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D"],
    "norm_num_groups": 4,
    "add_attention": False,
}


@dataclass(frozen=True)
class Setup:
    """One network and how it is trained. folder: PNG images of its resolution; scratch: a folder to write to."""

    name: str
    network: dict
    resolution: int
    batch_size: int
    folder: Path
    scratch: Path
    device: str = "cpu"
    workers: int = 0  # of the examples' DataLoader, which has none by default

    @property
    def unet(self):
        """The settings that diffusers' `UNet2DModel` knows, for other people's loops."""
        return {key: value for key, value in self.network.items() if key not in ("input_skip", "zero_init")}

    def with_workers(self, workers):
        """The same setup with so many DataLoader workers."""
        return replace(self, workers=workers)


@contextmanager
def setups(presets, images=256, tiny=False, **settings):
    """A `Setup` of each preset with a batch size, {name: size}, on drawn images; files and caches go afterwards.

    tiny: the presets' batch and resolution are kept small and their networks replaced by one that runs in milliseconds.
    """
    cache = os.environ.get("DEBIASLIB_CACHE")
    with tempfile.TemporaryDirectory(prefix="debiaslib-benchmark-") as scratch:
        os.environ["DEBIASLIB_CACHE"] = str(Path(scratch) / "cache")
        try:
            yield [_setup(name, size, Path(scratch), images, tiny, settings) for name, size in presets.items()]
        finally:
            os.environ.pop("DEBIASLIB_CACHE")
            if cache is not None:
                os.environ["DEBIASLIB_CACHE"] = cache


def _setup(name, batch_size, scratch, count, tiny, settings):
    preset = get_preset(name)
    resolution = 8 if tiny else preset.resolution
    network = {**preset.network, **(TINY if tiny else {}), "sample_size": resolution}
    folder = write_images(scratch / f"images-{resolution}", resolution, count)
    own = scratch / name
    own.mkdir()
    made = Setup(name, network, resolution, batch_size, folder, own)
    return replace(made, **settings)


def write_images(folder, resolution, count):
    """`count` drawn faces as PNG files in `folder`, which is returned."""
    if not folder.exists():
        folder.mkdir(parents=True)
        for start in range(0, count, 64):
            for index, image in enumerate(render(np.arange(start, min(start + 64, count)), resolution), start):
                Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{index:05d}.png")
    return folder
