"""The processes of one training or measurement: who we are among them, what they share, and how they agree.

    torchrun --standalone --nproc-per-node 4 -m debiaslib.training --experiment cifar10 --weighting debiased --seed 0

Every process draws the same global batch, from (seed, purpose, step), and takes its slice, so their number changes
the rounding of sums and nothing else. A process started alone is a `World` of one, in which all this costs nothing.
"""

import os
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from ..errors import InputError
from ..files import exclusive

__all__ = ["World", "current_world", "processes", "shared_batches"]

_LOCK_SECONDS = 60  # the others wait for the first at a collective meanwhile, which has a limit of its own


@dataclass(frozen=True)
class World:
    """`size` processes, of which this one is number `rank`. They call every method that exchanges something together.

    `local_rank` is its number on its machine, and that of its GPU.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def first(self):
        """Whether this process is the one that writes and speaks."""
        return self.rank == 0

    def backend(self, device):
        """What carries gradients between processes on such a device: "nccl", "gloo", or None for one process."""
        if self.size == 1:
            return None
        return "nccl" if device.startswith("cuda") else "gloo"

    def check(self, device, batch_size):
        """Raise InputError if the processes cannot share such a device or such a batch."""
        if self.size == 1:
            return
        if batch_size % self.size:
            raise InputError(f"batch_size is {batch_size}; {self.size} processes need a multiple of {self.size}")
        if device not in ("cpu", "cuda"):
            raise InputError(f"device is {device!r}; several processes need 'cuda', each its own GPU, or 'cpu'")
        if device == "cuda" and self.local_rank >= torch.cuda.device_count():
            raise InputError(
                f"{torch.cuda.device_count()} GPUs are on this machine; start no more processes on it than that"
            )

    def part(self, count):
        """This process's slice of a batch of `count`, which `check` has found to be divisible."""
        share = count // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    def purpose(self, purpose):
        """The name of a random stream that is this process's own; alone it is the plain one."""
        return purpose if self.size == 1 else f"{purpose}, process {self.rank} of {self.size}"

    def replicate(self, network):
        """The network to call in training: its parameters' gradients become the means over all processes.

        The first backward pass decides the order in which they are sent, so it must not be a step (`training`).
        """
        if self.size == 1:
            return network
        return DistributedDataParallel(network, gradient_as_bucket_view=True)

    def mean(self, values):
        """The mean over the processes of a tensor on the training's device, in float64; alone, the tensor as it is."""
        if self.size == 1:
            return values
        values = values.double()
        dist.all_reduce(values)
        return values / self.size

    def largest(self, number):
        """The largest of the whole numbers that the processes give."""
        if self.size == 1:
            return number
        numbers = torch.tensor([number])
        dist.all_reduce(numbers, op=dist.ReduceOp.MAX)
        return int(numbers)

    def same(self, value):
        """What the first process gives, for all of them."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    def wait(self):
        """Return when every process has come here."""
        self.largest(0)

    @contextmanager
    def together(self):
        """An InputError of any process in this block ends all of them with one line. Nothing is exchanged inside."""
        problem = None
        try:
            yield
        except InputError as error:
            if self.size == 1:
                raise
            problem = str(error)
        if self.size > 1:
            problems = [None] * self.size
            dist.all_gather_object(problems, problem)
            for rank, line in enumerate(problems):
                if line is not None:
                    self.refuse(line, rank)

    def refuse(self, line, speaker=0):
        """End all processes: `speaker` raises InputError, the others leave without a word."""
        # They leave with 0: at the first failure torchrun ends all others, maybe before the line is out.
        if self.rank == speaker:
            raise InputError(line) from None
        raise SystemExit(0)

    @contextmanager
    def exclusive(self, path, what):
        """The lock file `path`, held by the first process for all (`files.exclusive`).

        A process alone waits for it as long as it takes; several wait a minute, and end with one line.
        """
        with ExitStack() as held:
            with self.together():
                if self.first:
                    held.enter_context(exclusive(path, what, wait=None if self.size == 1 else _LOCK_SECONDS))
            yield


def current_world():
    """The `World` that this process is in: one alone, unless within `processes`."""
    if not dist.is_initialized():
        return World()
    return World(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", "0")))


@contextmanager
def processes(minutes=10):
    """Within this context the processes that torchrun started are one `World`, which it yields.

    minutes: how long one waits for another before it ends with an error, should that hang or its machine be lost. A
    process that ends is noticed at once on CPUs, and torchrun ends the others within half a minute.
    Raises InputError if WORLD_SIZE is set and what belongs to it is not.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise InputError(f"WORLD_SIZE is {size} but {', '.join(missing)} is not set; start the processes with torchrun")
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "cpu:gloo,cuda:nccl"
        local_rank = int(os.environ["LOCAL_RANK"])
        if local_rank < torch.cuda.device_count():
            torch.cuda.set_device(local_rank)  # "cuda" without a number is this one from here on
    dist.init_process_group(backend, timeout=timedelta(minutes=minutes))
    try:
        yield current_world()
    finally:
        dist.destroy_process_group()


def shared_batches(world, seeds, batch_size, shape, draw):
    """The uint8 batches of `draw(seeds)`, in order, on the first process; every process draws each `size`-th of them.

    Batches hold the same seeds as one process's, so the images are the same. shape: (C, H, W). draw: as for
    `sample_store.stored_samples`. On the other processes the iterator yields nothing, and is to be exhausted.
    """
    if not seeds:
        return
    batches = [seeds[start : start + batch_size] for start in range(0, len(seeds), batch_size)]
    own = iter(draw([seed for batch in batches[world.rank :: world.size] for seed in batch]))
    for number, batch in enumerate(batches):
        owner = number % world.size
        if owner == world.rank:
            images = next(own)
            if world.first:
                yield images
            else:
                dist.send(torch.from_numpy(images), dst=0)
        elif world.first:
            images = torch.empty(len(batch), *shape, dtype=torch.uint8)
            dist.recv(images, src=owner)
            yield images.numpy()
