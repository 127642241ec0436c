"""A command in processes that carry a mark, so that whatever outlives it is found; and a notebook that does as told."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

ROOT = Path(__file__).resolve().parents[2]
_MARK, _DOES = "DEBIASLIB_TEST_TRIAL", "DEBIASLIB_TEST_NOTEBOOK"

# The second cell does what the environment says; "wait" writes into the results until it is ended.
_PARAMETERS = 'experiment: str = ""\ndataset: str = ""\nresults: str = ""'
_CELL = f"""
import os, signal, sys, time
from pathlib import Path

does = os.environ.get("{_DOES}", "")
if does == "wait":
    while True:
        with open(Path(results) / "heartbeat", "a") as file:
            file.write(f"{{os.getpid()}}\\n")
        time.sleep(0.1)
exec(does)
"""


def write_notebook(path):
    """Write a notebook with the parameters of ours, a cell that does what a `Trial` says, and a last one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = [new_code_cell(_PARAMETERS, metadata={"tags": ["parameters"]}), new_code_cell(_CELL)]
    cells.append(new_code_cell('print("the last cell ran")'))
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)


def write_checkout(folder, *names):
    """A checkout with our package and settings whose notebooks, of these names, are those of `write_notebook`."""
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("debiaslib", "config"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    shutil.copy(ROOT / "Snakefile", folder)
    for name in names:
        write_notebook(folder / "notebooks" / f"{name}.ipynb")
    return folder


class Trial:
    """`command` in a session of its own. `does`: what the notebook does, "wait" or Python code; "" runs to its end."""

    def __init__(self, command, cwd, does="", **environment):
        self._mark = f"{_MARK}={uuid.uuid4()}"
        marked = dict([self._mark.split("=")], **{_DOES: does})
        self.process = subprocess.Popen(
            [sys.executable, *map(str, command)], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, **marked, **environment}, start_new_session=True,
        )  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for pid in self.alive():
            _send(pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()

    def alive(self):
        """{pid: command line} of every living process that the command started, wherever it has gone since."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                marks = (folder / "environ").read_bytes().split(b"\0")
                state = (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
                if self._mark.encode() in marks and state != "Z":
                    found[int(folder.name)] = (folder / "cmdline").read_text(errors="replace").replace("\0", " ")
            except (FileNotFoundError, ProcessLookupError, PermissionError):  # it has ended meanwhile, or is not ours
                continue
        return found

    def find(self, part):
        """The pid of the process with `part` in its command line that has lived the longest."""
        return min((pid for pid, line in self.alive().items() if part in line), default=None)

    def wait_for(self, condition, seconds=900):
        """What `condition()` gives once that is true; fails when the command ends before, or after `seconds`."""
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            assert self.process.poll() is None, self.process.stdout.read()
            assert time.monotonic() < deadline, f"waited in vain; there are {self.alive()}"
            time.sleep(0.05)
        return found

    def end(self, seconds=900):
        """(exit status, what was printed) once the command has ended."""
        said, _ = self.process.communicate(timeout=seconds)
        return self.process.returncode, said

    def last_of_them(self, seconds):
        """Seconds until none of its processes lived; fails after `seconds`."""
        started = time.monotonic()
        while left := self.alive():
            assert time.monotonic() - started < seconds, f"after {seconds} s there are still {left}"
            time.sleep(0.05)
        return time.monotonic() - started


def _send(pid, number):
    with contextlib.suppress(ProcessLookupError):  # it has ended by itself
        os.kill(pid, number)


def heartbeat(results):
    """The kernel that writes into `results`, by pid, and how often it has; None if none does."""
    path = Path(results) / "heartbeat"
    lines = path.read_text(encoding="ascii").splitlines() if path.exists() else []
    return (int(lines[-1]), len(lines)) if lines else None


def ran_to_its_end(folder, name):
    """Whether results say that the notebook is done: its record, and every cell executed in its copy."""
    record, copy = folder / "notebooks" / f"{name}.json", folder / "notebooks" / f"{name}.ipynb"
    if not record.exists():
        return False
    assert json.loads(record.read_text(encoding="utf-8"))["notebook"] == name
    last = nbformat.read(copy, as_version=4).cells[-1]
    assert [output.text for output in last.outputs] == ["the last cell ran\n"]
    return True
