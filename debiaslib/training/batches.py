"""The batch of each step: images, timesteps, noise and labels, from (seed, purpose, step) alone.

So a resumed training sees what an uninterrupted one does, and all weightings of one seed see the same.
"""

import numpy as np
import torch

from ..diffusion.randomness import stream
from ..diffusion.sampling import to_float


class Batches:
    """`batches(step)` is (x0, t, noise, labels), this process's part of the batch.

    x0 and noise: float32 (B, C, H, W) on the configuration's device, x0 in [-1, 1]. t: int64 (B,) on the CPU.
    labels: int64 (B,), or None for images without classes.
    """

    def __init__(self, config, images, objective, world):
        self.config, self.objective, self.world = config, objective, world
        self.pixels = Pixels(images.images, config.device)
        self.labels = None if images.labels is None else torch.from_numpy(images.labels)

    def __call__(self, step):
        """The batch of a step. The whole one is drawn in every process, and this one's part returned."""
        config, size, mine = self.config, self.config.batch_size, self.world.part(self.config.batch_size)
        rows = torch.randint(len(self.pixels), (size,), generator=stream(config.seed, "images", step))[mine]
        x0 = to_float(self.pixels.take(rows))
        t = self.objective.timesteps(step)[mine]
        if config.horizontal_flip:
            flip = torch.rand(size, generator=stream(config.seed, "flips", step))[mine] < 0.5
            x0 = torch.where(flip.to(x0.device, non_blocking=x0.is_cuda).view(-1, 1, 1, 1), x0.flip(-1), x0)
        generator = stream(config.seed, "noise", step, config.device)
        noise = torch.randn((size, *x0.shape[1:]), generator=generator, device=config.device)[mine]
        return x0, t, noise, None if self.labels is None else self.labels[rows].to(config.device)


class Pixels:
    """Rows of `images`, uint8 (N, C, H, W), an array or a memory map; batches of them lie on `device`.

    Images of up to `limit` bytes are copied to the device. Of larger data each batch is read from the file.
    """

    def __init__(self, images, device="cpu", limit=2 << 30):
        self.images, self.device = images, torch.device(device)
        self.resident = torch.from_numpy(np.array(images)).to(device) if images.nbytes <= limit else None

    def __len__(self):
        return len(self.images)

    def take(self, index):
        """The rows `index` (int64 (B,) on the CPU), uint8 (B, C, H, W)."""
        if self.resident is not None:
            return self.resident[index.to(self.device, non_blocking=self.device.type == "cuda")]
        rows, order = torch.unique(index, return_inverse=True)  # read in the order of the file
        batch = torch.from_numpy(self.images[rows.numpy()])[order]
        return batch.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else batch
