"""Several processes, which torchrun starts, share one training: which one this is, and what they exchange.

Every process draws the same whole batch, from (seed, purpose, step), and takes its slice of it. So their number changes
the rounding of sums and nothing else.
"""

import os
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from ..errors import InputError


@dataclass(frozen=True)
class World:
    """`size` processes, of which this one is `rank`. All must call a method that exchanges something."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # on its machine: the number of its GPU

    @property
    def first(self):
        """Whether this process is the one that writes files and messages."""
        return self.rank == 0

    def check(self, device, batch_size):
        """Raise InputError if the processes cannot share this device or a batch of this size."""
        if self.size == 1:
            return
        if batch_size % self.size:
            raise InputError(f"batch_size is {batch_size}; {self.size} processes need a multiple of {self.size}")
        if device not in ("cpu", "cuda"):
            raise InputError(f"device is {device!r}; several processes need 'cuda', each its own GPU, or 'cpu'")
        if device == "cuda" and self.local_rank >= torch.cuda.device_count():
            raise InputError(f"this machine has {torch.cuda.device_count()} GPUs; start one process for each at most")

    def part(self, count):
        """This process's slice of a batch of `count` images, a multiple of `size`."""
        share = count // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    def purpose(self, purpose):
        """The name of a random stream that only this process uses; the plain name for one process."""
        return purpose if self.size == 1 else f"{purpose}, process {self.rank} of {self.size}"

    def replicate(self, network):
        """The network to call in training; backward then gives the mean gradient over all processes."""
        return network if self.size == 1 else DistributedDataParallel(network, gradient_as_bucket_view=True)

    def exchanging(self, model, now):
        """A context for one forward and backward pass: gradients are exchanged in it if `now`, else summed up."""
        return nullcontext() if self.size == 1 or now else model.no_sync()

    def mean(self, values):
        """The mean over the processes of a tensor on the training's device, in float64; for one process as it is."""
        if self.size == 1:
            return values  # maybe of an Apple GPU, which has no float64
        values = values.double()
        dist.all_reduce(values)
        return values / self.size

    def all_max(self, *numbers):
        """The largest of each whole number over the processes, as a list. All wait here for each other."""
        values = torch.tensor(numbers, dtype=torch.int64)
        if self.size > 1:
            dist.all_reduce(values, op=dist.ReduceOp.MAX)
        return values.tolist()

    def broadcast(self, value):
        """The first process's `value`, in every process."""
        box = [value]
        if self.size > 1:
            dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]


def current_world():
    """The `World` of this process: of one, unless it is within `processes`."""
    if not dist.is_initialized():
        return World()
    return World(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", "0")))


@contextmanager
def processes():
    """Join the processes that torchrun started; yields their `World`.

    A process that waits ten minutes for another, which hangs or whose machine is lost, ends with an error.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield World()
        return
    gpus, backend = torch.cuda.device_count(), "gloo"
    if gpus:
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % gpus)  # "cuda" without a number is this GPU from here on
    dist.init_process_group(backend, timeout=timedelta(minutes=10))
    try:
        yield current_world()
    finally:
        dist.destroy_process_group()
