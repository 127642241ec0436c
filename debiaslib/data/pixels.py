"""The training images as a step wants them: on the device if they are few, else read from disk one step ahead."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

ON_DEVICE_BYTES = 2 << 30  # a data set up to this size lives on the device as uint8


class Pixels:
    """Rows of `images`, uint8 (N, C, H, W), an array or a memory map, given out on `device`.

    Up to `limit` bytes are copied to the device. Of more nothing is kept: a thread reads the rows of the coming step
    while this one is computed, so that the process's own memory holds two batches, and a third while rows are gathered,
    whatever the number of images; what the system keeps of the file in its page cache it gives back when memory is
    asked for.
    """

    def __init__(self, images, device="cpu", limit=ON_DEVICE_BYTES):
        self.images, self.device = images, torch.device(device)
        self.resident = torch.from_numpy(np.array(images)).to(device) if images.nbytes <= limit else None
        self._reader = None if self.resident is not None else ThreadPoolExecutor(1, "pixels")
        self._ahead = None  # (rows, future of their pixels)

    def __len__(self):
        return len(self.images)

    def take(self, index, upcoming=None):
        """The rows `index` (int64 (B,) on the CPU), uint8 (B, C, H, W).

        upcoming: a function that says which rows the next call will want; asked only where they are read ahead. What is
        given out never depends on it, only how soon.
        """
        if self.resident is not None:
            return self.resident[index.to(self.device, non_blocking=self.device.type == "cuda")]
        waiting, self._ahead = self._ahead, None
        known = waiting is not None and torch.equal(waiting[0], index)
        batch = waiting[1].result() if known else self._read(index)
        if upcoming is not None:
            rows = upcoming()
            self._ahead = rows, self._reader.submit(self._read, rows)
        return batch.to(self.device, non_blocking=batch.is_pinned())

    def _read(self, index):
        """The rows in their order, read in the order of the file; in pinned memory where a GPU will fetch them."""
        rows = index.numpy()
        order = np.argsort(rows, kind="stable")
        batch = torch.empty(
            (len(rows), *self.images.shape[1:]), dtype=torch.uint8, pin_memory=self.device.type == "cuda"
        )
        batch.numpy()[order] = self.images[rows[order]]
        return batch
