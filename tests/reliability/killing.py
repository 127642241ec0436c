"""A process that imports once and then forks a child for each order, which trains or samples until it is killed.

    python killing.py < orders > answers

An order is a line of JSON: `task` ("train" or "sample") and `results`, a folder; for a training `settings` (of
`TrainConfig`) and `every`, the steps between two checkpoints; and how the child is to end: `signal` (a name) at the
moment `at`, when that has come `count` times, or `after` it has used so much of the processor's time, in seconds, which
is as random and does not depend on what else the machine does. The answer: its exit code, the seconds of processor time
it took, what it said on stderr and, if a signal to stop came, the steps taken before it and the seconds since.

Nothing of the library knows of this: in the child the functions that write are replaced by ones that also say how far
they are. Forking is safe here: one torch thread, and the parent never runs a backward pass, whose threads a child would
lack.
"""

import json
import os
import pathlib
import signal
import stat
import sys
import tempfile
import threading
import time
import traceback
import warnings

import torch

from debiaslib import files
from debiaslib.cli import run_command
from debiaslib.diffusion.sampling import sample_batches
from debiaslib.signals import StopFlag
from debiaslib.study import sample_store
from debiaslib.training import checkpoints
from debiaslib.training import loop as training
from debiaslib.training import write_record as run_files
from debiaslib.training.config import TrainConfig
from debiaslib.training.network import build_network, build_schedule
from debiaslib.training.processes import World

LOG_ROWS = 5
STEPS_OF_A_FILE = ("before its temporary file", "with an empty temporary file", "half-way through it", "before fsync",
                   "before the rename", "after the rename", "after the folder's fsync")  # fmt: skip
SAMPLES = {"seeds": range(10), "shape": (3, 8, 8), "inputs": {"sampler": "ddpm", "steps": 3, "n": 10}}


def moments_of(*artefacts):
    """Every step in the writing of each of these files."""
    return [f"{artefact}: {step}" for artefact in artefacts for step in STEPS_OF_A_FILE]


IN_THE_LOOP = [
    *moments_of("checkpoint", "its note", "snapshot"),
    "a step: before",
    "a step: after",
    "a step: after it asked for signals",
    "log: half-way through a row",
    "tidying: before a removal",
    "tidying: after a removal",
]
OF_A_TRAINING = [*moments_of("config", "log"), *IN_THE_LOOP, *moments_of("raw weights", "record")]
OF_SAMPLING = [
    *moments_of("progress note", "record"),
    "a batch: before",
    "a batch: half-way through it",
    "a batch: before fsync",
    "images: before the rename",
    "images: after the rename",
    "tidying: before a removal",
]


def artefact(path):
    """What a file, or its temporary one, is: a word of the moments."""
    name = pathlib.Path(path).name.lstrip(".")
    if name.startswith("step-"):
        return "checkpoint" if name.endswith(".pt") else "its note"
    words = {"ema-": "snapshot", "raw-": "raw weights", "config": "config", "log": "log", "record": "record"}
    for start, word in words.items():
        if name.startswith(start):
            return word
    if ".progress" in name:
        return "progress note"
    return "record" if name.endswith(".json") else "images"


class Moments:
    """Counts how often the moment of an order has come, and acts when it is time."""

    def __init__(self, at, count, act):
        self.at, self.left, self.act = at, count, act
        self.written = []  # what is being written, the innermost last: a note waits for its checkpoint

    def __call__(self, moment):
        if moment == self.at:
            self.left -= 1
            if self.left == 0:
                self.act()

    def is_next(self, moment):
        return moment == self.at and self.left == 1

    def around(self, owner, name, before, after=None):
        """Call owner.name as ever, with these moments before and after: functions of its arguments."""
        real = getattr(owner, name)

        def watched(*arguments, **named):
            self(before(*arguments, **named))
            made = real(*arguments, **named)
            if after:
                self(after(*arguments, **named))
            return made

        setattr(owner, name, watched)

    def halved(self, owner, name, path_of):
        """Call owner.name, which writes a whole file; half of it is there when its moment has come."""
        real = getattr(owner, name)

        def watched(*arguments, **named):
            path = path_of(*arguments)
            moment = f"{artefact(path)}: half-way through it"
            made = real(*arguments, **named)
            if self.is_next(moment):
                whole = pathlib.Path(path).read_bytes()
                os.truncate(path, len(whole) // 2)
                self(moment)
                pathlib.Path(path).write_bytes(whole)  # it was another signal than SIGKILL
            else:
                self(moment)
            return made

        setattr(owner, name, watched)


class HalfWritten:
    """A file of which one `write` stops half-way when its moment has come."""

    def __init__(self, file, moments, moment):
        self.file, self.moments, self.moment = file, moments, moment

    def write(self, content):
        content = content if isinstance(content, str) else content.tobytes()
        middle = len(content) // 2
        self.file.write(content[:middle])
        if self.moments.is_next(self.moment):
            self.file.flush()
        self.moments(self.moment)
        return self.file.write(content[middle:])

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return self.file.__exit__(*error)


def watch(moments):
    """Replace what writes, in this process."""

    def started(dir=None, prefix=None, suffix=None):
        moments.written.append(artefact(prefix.lstrip(".") + suffix))
        return moments.written[-1]

    moments.around(tempfile, "mkstemp", lambda **k: f"{started(**k)}: before its temporary file",
                   lambda **k: f"{moments.written[-1]}: with an empty temporary file")  # fmt: skip
    moments.halved(checkpoints.torch, "save", lambda state, path: path)
    moments.halved(run_files, "save_file", lambda tensors, path: path)
    moments.halved(pathlib.Path, "write_text", lambda path, text: path)

    def syncing(handle, when):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            return f"{moments.written[-1]}: {when} the folder's fsync"
        return f"{moments.written[-1] if moments.written else 'a batch'}: {when} fsync"

    moments.around(files.os, "fsync", lambda h: syncing(h, "before"), lambda h: syncing(h, "after"))
    moments.around(files.os, "replace", lambda old, new: f"{artefact(new)}: before the rename",
                   lambda old, new: f"{artefact(new)}: after the rename")  # fmt: skip
    unlink = pathlib.Path.unlink

    def watched_unlink(path, missing_ok=False):
        there = path.exists() and not path.name.endswith(".owner")
        if there:
            moments("tidying: before a removal")
        unlink(path, missing_ok=missing_ok)
        if there:
            moments("tidying: after a removal")

    pathlib.Path.unlink = watched_unlink
    _watch_open(moments)
    sync = files._sync_folder

    def synced(folder):
        sync(folder)
        moments.written.pop()

    files._sync_folder = synced


def _watch_open(moments):
    """The two files that grow: the log of a training, and the images of a job while they are drawn."""

    def opening(moment, grows):
        def watched(path, mode="r", **named):
            file = open(path, mode, **named)  # noqa: SIM115 - the caller closes it
            return HalfWritten(file, moments, moment) if grows(mode, sys._getframe(1).f_code.co_name) else file

        return watched

    training.open = opening("log: half-way through a row", lambda mode, caller: mode == "a")
    sample_store.open = opening("a batch: half-way through it", lambda mode, caller: caller == "_write")


def train(order, moments, received):
    """Train as ordered; `received` is a file for what a signal to stop found."""
    taken = [0]
    one_step, write, note = training._Training._one_step, training._Training._write, StopFlag._receive

    def step(self):
        moments("a step: before")
        one_step(self)
        taken[0] = self.step
        moments("a step: after")

    def every(self, snapshot, checkpoint):
        write(self, snapshot, checkpoint or self.step % order["every"] == 0)

    def receive(self, number, frame):
        received.write_text(json.dumps({"step": taken[0], "time": time.monotonic()}))
        note(self, number, frame)

    training._Training._one_step, training._Training._write, StopFlag._receive = step, every, receive
    moments.around(World, "largest", lambda *_: "", lambda *_: "a step: after it asked for signals")
    training._LOG_ROWS = LOG_ROWS
    torch.manual_seed(time.time_ns() % 2**32)  # whatever else was drawn in the process
    config = TrainConfig(**order["settings"])
    training.train(config, order["results"], "test", progress=False, checkpoint_seconds=1e9)


def sample(order, moments):
    """Draw with a network that has not been trained."""
    config = TrainConfig(**order["settings"])
    network, schedule = build_network(config).eval(), build_schedule(config)

    def draw(seeds):
        for batch in sample_batches(network, schedule, seeds, sampler="ddpm", steps=3, batch_size=4):
            moments("a batch: before")
            yield batch

    folder = pathlib.Path(order["results"])
    folder.mkdir(parents=True, exist_ok=True)
    sample_store.stored_samples(folder, SAMPLES["inputs"], SAMPLES["seeds"], SAMPLES["shape"], draw)


def _later(seconds, number):
    """Send ourselves a signal after so much processor time; one to stop, from the moment on that it is heeded."""

    def wait():
        started = time.process_time()
        while time.process_time() < started + seconds:
            time.sleep(0.001)
        os.kill(os.getpid(), number)

    start = threading.Thread(target=wait, daemon=True).start
    if number == signal.SIGKILL:
        start()
        return
    enter = StopFlag.__enter__

    def entered(self):
        flag = enter(self)
        start()
        return flag

    StopFlag.__enter__ = entered


def child(order, said, received):
    """Do the order and end."""
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    number = getattr(signal, order.get("signal", "SIGKILL"))
    moments = Moments(order.get("at"), order.get("count", 1), lambda: os.kill(os.getpid(), number))
    if "after" in order:
        _later(order["after"], number)
    code = 1
    try:
        watch(moments)
        if order["task"] == "train":
            run_command(lambda: train(order, moments, received))
        run_command(lambda: sample(order, moments))
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    os._exit(code)  # not by way of the interpreter's clearing up, which takes a forked one seconds


def obey(order, folder):
    """Fork a child for an order; its answer."""
    said, received = folder / "said", folder / "received"
    received.unlink(missing_ok=True)
    pid = os.fork()
    if pid == 0:
        child(order, said, received)
    _, status, used = os.wait4(pid, 0)
    ended = time.monotonic()
    noted = json.loads(received.read_text()) if received.exists() else None
    asked = {} if noted is None else {"steps": noted["step"], "since": ended - noted["time"]}
    seconds = used.ru_utime + used.ru_stime
    return {"code": os.waitstatus_to_exitcode(status), "seconds": seconds, "said": said.read_text(), **asked}


def main():
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        for line in sys.stdin:
            print(json.dumps(obey(json.loads(line), pathlib.Path(folder))), flush=True)


if __name__ == "__main__":
    main()
