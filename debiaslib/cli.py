"""What every command of this package shares: errors in one line, exit codes, the arguments that name an experiment."""

import argparse
import contextlib
import errno
import os
import re
import sys

from .errors import InputError, WorkFailed, one_line
from .files import FULL
from .signals import SUPERVISED, end_with_parent

NOT_WRITTEN = 74  # exit status, EX_IOERR of sysexits.h
_STATUS = "exit status: 0 done, 1 a job failed, 2 wrong input, 3 killed, 4 no memory, 74 disk, 130 or 143 stopped"
# Full, read-only, without the permission, or a file where a folder must be.
_DISK = (*FULL, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST)


def run_command(main):
    """Run `main()` as a command and exit with a status of `_STATUS`, with one line on stderr where it failed."""
    if os.environ.get(SUPERVISED):
        end_with_parent(int(os.environ[SUPERVISED]))
    try:
        sys.exit(main() or 0)
    except InputError as error:
        status, line = error.status, str(error)
    except (MemoryError, RuntimeError) as error:
        if not says_memory(f"{type(error).__name__}: {error}"):
            raise
        status, line = WorkFailed.MEMORY, f"there is too little memory: {error}"
    except OSError as error:
        if error.errno not in _DISK:
            raise
        what = "a file" if error.filename is None else repr(os.fsdecode(error.filename))
        then = "; the same command goes on when there is room" if error.errno in FULL else ""
        status, line = NOT_WRITTEN, one_line(f"{what} cannot be opened or written: {os.strerror(error.errno)}{then}")
    except KeyboardInterrupt:
        sys.exit(130)
    with contextlib.suppress(OSError):  # the log of a job may be on the disk that is full
        print(f"error: {line}", file=sys.stderr)
    sys.exit(status)


def says_memory(text):
    """Whether an error's name and message tell of too little memory: Python's, numpy's, or PyTorch's on any device."""
    return re.search(r"MemoryError|OutOfMemory|out of memory|not enough memory|can't allocate memory", text) is not None


class Parser(argparse.ArgumentParser):
    """An argument parser that says a mistake in one line, without its usage, and ends with exit code 2."""

    def error(self, message):
        self.exit(2, f"error: {one_line(message)}\n")


def experiment_parser(description):
    """An argument parser with --experiment, --dataset and --results."""
    parser = Parser(description=description, epilog=_STATUS)
    parser.add_argument("--experiment", default="quick", help="a name of config/, or the path of a YAML file")
    parser.add_argument("--dataset", default="", help="a name, path or hub id; default: the experiment's own data set")
    parser.add_argument("--results", default="", help="the folder of all results; default: results/ of the checkout")
    return parser
