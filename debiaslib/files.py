"""Files that are there whole or not at all: atomic writes, hashes, locks between processes. Imports no torch."""

import errno
import glob
import hashlib
import io
import json
import os
import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from .errors import InputError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, the user's share of it, or the file has its largest size
_HARDLY_ANY = 1 << 16  # bytes left on a disk that is full


@contextmanager
def atomic_path(path):
    """Yields a temporary path in the folder of `path`; on leaving it is synced and renamed, on an error removed.

    An error leaves what was there before. Raises OSError that names `path` where the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
    except Exception as error:
        number = getattr(error, "errno", None)
        if number is None and shutil.disk_usage(path.parent).free < _HARDLY_ANY:
            number = errno.ENOSPC  # torch, safetensors and PIL do not say why a write fell short
        if number in FULL and getattr(error, "filename", None) in (None, str(temporary)):
            raise OSError(number, os.strerror(number), str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(path):
    """Remove temporary files that killed writers of `path` left. The caller holds the lock that its writers take."""
    for leftover in path.parent.glob(f".{glob.escape(path.stem)}-????????{glob.escape(path.suffix)}"):
        leftover.unlink(missing_ok=True)


def write_text(path, text):
    """Write `text` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path, value):
    """Write JSON, as `as_json` has it, atomically."""
    write_text(path, as_json(value))


def as_json(value):
    """The text of JSON, indented, keys in their order. NaN and infinity are refused (ValueError)."""
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def write_npy(path, array):
    """Write an array as a .npy file, without pickles. `np.save` does not notice that its last bytes found no room."""
    import numpy as np

    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    with open(path, "wb") as file:
        file.write(content.getbuffer())


def read_json(path):
    """The JSON in `path`, or None for no file. Raises InputError if damaged."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        raise InputError(f"{path} is damaged: it is no JSON; move it away to have it made again") from None


def sha256_file(path):
    """sha256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(value):
    """sha256 of a JSON-native value, in hex, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


@contextmanager
def exclusive(path, what):
    """Hold the lock file `path`, which the system frees when the process ends, however it ends.

    Waits as long as it takes, with a line on stderr after half a second that names `what` is waited for.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0.5)
    except Timeout:
        print(f"waiting for another process, which has {what}", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
