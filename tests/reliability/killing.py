"""A process that imports once and then forks a child for each order, which trains until it is done or killed.

    python killing.py < orders > answers

An order is a line of JSON: `results`, a folder; `settings` of `TrainConfig`; and `kill`: the number of the call of the
file system at which the child kills itself (0: none), or `after`: seconds of processor time after which it is ended.
The answer is [exit code, number of such calls that were made].

Forking is safe here: one torch thread, and the parent never runs a backward pass, whose threads a child would lack.
"""

import json
import os
import pathlib
import signal
import sys
import tempfile
import warnings

import torch

from debiaslib.training import loop as training
from debiaslib.training.config import TrainConfig


class Calls:
    """Counts the calls that change what lies on the disk, and kills the process at one of them."""

    def __init__(self, kill):
        self.kill, self.made = kill, 0
        for owner, name in (
            (tempfile, "mkstemp"),
            (os, "fsync"),  # which is then not done: no machine loses its power here
            (os, "replace"),
            (os, "unlink"),
            (pathlib.Path, "unlink"),
            (pathlib.Path, "write_text"),
            (torch, "save"),
        ):
            setattr(owner, name, self.counted(getattr(owner, name)))

    def counted(self, real):
        def call(*arguments, **named):
            self.made += 1
            if self.made == self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            return None if real.__name__ == "fsync" else real(*arguments, **named)

        return call


def child(order, answer):
    """Train as ordered; never returns."""
    calls = Calls(order.get("kill", 0))
    if "after" in order:
        signal.setitimer(signal.ITIMER_PROF, order["after"])  # its signal ends the process, as nobody handles it
    torch.manual_seed(os.getpid())  # whatever else was drawn in the process
    config = TrainConfig(**order["settings"])
    training.train(config, order["results"], "test", progress=False, checkpoint_seconds=0)
    os.write(answer, str(calls.made).encode())
    os._exit(0)  # not by way of the interpreter's clearing up, which takes a forked one seconds


def main():
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        order, (read, write) = json.loads(line), os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                child(order, write)
            finally:
                os._exit(1)
        os.close(write)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with os.fdopen(read) as answer:
            print(json.dumps([code, int(answer.read() or 0)]), flush=True)


if __name__ == "__main__":
    main()
