"""A process that imports once and then forks several children for each order, which start the same moment.

    python crowd.py < orders > answers

An order is a line of JSON: `commands`, for each child a list (a module of debiaslib that has a `main`, and its
arguments, or "hold" and those of `hold`); `folder`, which is new; and `killed`, how many holders of the lock whose name
ends in `lock` are to be killed one after the other. The answer: `children`, each with its pid, exit code and what it
said on stderr, as (seconds, line); `work`, a (pid, what, seconds) for each piece that was done; and `kills`, (pid,
seconds until another had the lock, seconds).

Seconds are counted from the start. Forking is safe here: one torch thread, and the parent never runs a backward pass.
"""

import importlib
import json
import os
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path

import torch

from debiaslib import files
from debiaslib.cli import run_command
from debiaslib.data import decoding
from debiaslib.study import run_notebook as execution
from debiaslib.study import samples as sample_measurements
from debiaslib.study import study
from debiaslib.study.sample_store import sample_path
from debiaslib.training import loss_sums  # noqa: F401


class Lines:
    """The standard error of a child: each line with its time."""

    def __init__(self, path, started):
        self.file, self.started = path.open("w", encoding="utf-8", buffering=1), started

    def write(self, text):
        for line in filter(None, text.splitlines()):
            self.file.write(json.dumps([time.monotonic() - self.started, line]) + "\n")
        return len(text)

    def flush(self):
        self.file.flush()

    def isatty(self):
        return False


def count(work, started):
    """Replace what works by what also notes it, a line a piece; lines of one write are never mixed."""
    notes = os.open(work, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(what):
        os.write(notes, (json.dumps([os.getpid(), what, time.monotonic() - started]) + "\n").encode())

    def noting(owner, name, what):
        real = getattr(owner, name)

        def noted(*arguments, **named):
            note(what(*arguments))
            return real(*arguments, **named)

        setattr(owner, name, noted)

    noting(loss_sums.LossSums, "add", lambda sums, step, values: f"step {step} of {sums.name}")
    noting(decoding, "_decode_named", lambda item, resolution: f"image {hash(item[1])}")  # not what tries the libraries
    noting(execution, "_execute", lambda source, target, parameters: f"notebook {source.stem}")
    table, stored = study.Study.table, sample_measurements.stored_samples

    def counted_table(self, name, inputs, make):
        return table(self, name, inputs, lambda path: (note(f"table {name}"), make(path)))

    def counted_samples(folder, inputs, seeds, shape, draw):
        def counted(left):
            drawn = len(seeds) - len(left)
            for batch in draw(left):
                note(f"images from {drawn} of {sample_path(folder, inputs).stem}")
                drawn += len(batch)
                yield batch

        return stored(folder, inputs, seeds, shape, counted)

    study.Study.table, sample_measurements.stored_samples = counted_table, counted_samples
    acquire = files.FileLock.acquire

    def acquired(self, *arguments, **named):
        made = acquire(self, *arguments, **named)
        note(f"held {self.lock_file}")
        return made

    files.FileLock.acquire = acquired


def hold(path, seconds, wait=None):
    """Hold a lock for so many seconds; leave if it is not free within `wait`."""
    with files.exclusive(path, "the lock", wait=wait and float(wait)):
        time.sleep(float(seconds))


def child(command, folder, gate, started):
    """Do the command once the gate is open."""
    sys.stderr = Lines(folder / f"said-{os.getpid()}", started)
    count(folder / "work", started)
    os.read(gate, 1)  # until the parent closes its end
    code = 1
    try:
        name, *arguments = command
        sys.argv = [name, *arguments]
        if name == "hold":
            run_command(lambda: hold(*arguments))
        run_command(importlib.import_module(f"debiaslib.{name}").main)
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    os._exit(code)


def lines_of(path):
    """The JSON lines of a file, those that are complete."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.split("\n")[:-1]]


def kill_holders(number, lock, work, started):
    """Kill the holder of a lock so many times; (number of the process, seconds until another held it), for each."""
    kills = []

    def holders():
        return [(pid, at) for pid, what, at in lines_of(work) if what.startswith("held ") and what.endswith(lock)]

    while len(kills) < number:
        while not holders() or (kills and holders()[-1][0] == kills[-1][0]):
            time.sleep(0.005)
        time.sleep(0.8)  # the others have looked, and said for whom they wait
        (pid, _), before = holders()[-1], len(holders())
        killed = time.monotonic() - started
        os.kill(pid, signal.SIGKILL)
        while len(holders()) == before:
            time.sleep(0.005)
        kills.append([pid, holders()[before][1] - killed, killed])
    return kills


def obey(order):
    """Fork the children of an order; the answer."""
    folder = Path(order["folder"])
    folder.mkdir(parents=True)
    os.environ["DEBIASLIB_CACHE"] = str(folder / "cache")
    gate, opened = os.pipe()
    started, pids = time.monotonic(), []
    for command in order["commands"]:
        pid = os.fork()
        if pid == 0:
            os.close(opened)
            child(command, folder, gate, started)
        pids.append(pid)
    os.close(gate)
    time.sleep(0.3)  # all are at the gate
    os.close(opened)
    kills = kill_holders(order.get("killed", 0), order.get("lock"), folder / "work", started)
    codes = {pid: os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids}
    said = {pid: lines_of(folder / f"said-{pid}") for pid in pids}
    children = [{"pid": pid, "code": codes[pid], "said": said[pid]} for pid in pids]
    return {"children": children, "work": lines_of(folder / "work"), "kills": kills}


def main():
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        print(json.dumps(obey(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
